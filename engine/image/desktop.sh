# Installs packages on top of an image. $1 is a directory whose upper holds the
# changes in the end, $2 the image's layers, $3 the descriptor for apt's status;
# then apt's options, --, and the packages. It runs in a mount namespace of its
# own.
work=$1 lowers=$2 status=$3
shift 3
root=$work/root
mkdir -p "$work/upper" "$work/work" "$root" "$work/archives/partial" "$work/lists/partial"
mount -t overlay overlay -o "lowerdir=$lowers,upperdir=$work/upper,workdir=$work/work" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev"
for d in null zero full random urandom; do
	: >"$root/dev/$d"
	mount --bind "/dev/$d" "$root/dev/$d"
done
ln -s /proc/self/fd "$root/dev/fd"
mkdir -m 1777 "$root/dev/shm"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
# What apt fetches, and what names hosts here, never enters the image.
mount --bind "$work/archives" "$root/var/cache/apt/archives"
mount --bind "$work/lists" "$root/var/lib/apt/lists"
if [ -e /etc/resolv.conf ]; then mount --bind /etc/resolv.conf "$root/etc/resolv.conf"; fi
mount --bind /etc/hosts "$root/etc/hosts"

options=
while [ "$1" != -- ]; do
	options="$options $1"
	shift
done
shift
for dir in man doc info locale lintian bug; do
	options="$options -o Dpkg::Options::=--path-exclude=/usr/share/$dir/*"
done
options="$options -o Dpkg::Options::=--path-include=/usr/share/doc/*/copyright -o Dpkg::Options::=--force-unsafe-io"
apt() {
	# shellcheck disable=SC2086
	chroot "$root" apt-get -q -y -o APT::Install-Recommends=false -o "APT::Status-Fd=$status" $options "$@"
}

printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # no services here
chmod 755 "$root/usr/sbin/policy-rc.d"
apt update
apt install "$@"
rm "$root/usr/sbin/policy-rc.d"

# The desktop comes up without questions, effects, or anything that locks it.
xfce=$root/etc/xdg/xfce4
mkdir -p "$xfce/xfconf/xfce-perchannel-xml"
cp "$xfce/panel/default.xml" "$xfce/xfconf/xfce-perchannel-xml/xfce4-panel.xml"
cat >"$xfce/xfconf/xfce-perchannel-xml/xfwm4.xml" <<'IN'
<?xml version="1.0" encoding="UTF-8"?>
<channel name="xfwm4" version="1.0">
  <property name="general" type="empty">
    <property name="use_compositing" type="bool" value="false"/>
    <property name="workspace_count" type="int" value="1"/>
  </property>
</channel>
IN
cat >"$xfce/xfconf/xfce-perchannel-xml/xfce4-desktop.xml" <<'IN'
<?xml version="1.0" encoding="UTF-8"?>
<channel name="xfce4-desktop" version="1.0">
  <property name="backdrop" type="empty">
    <property name="screen0" type="empty">
      <property name="monitorscreen" type="empty">
        <property name="workspace0" type="empty">
          <property name="color-style" type="int" value="0"/>
          <property name="image-style" type="int" value="0"/>
          <property name="rgba1" type="array">
            <value type="double" value="0.13"/>
            <value type="double" value="0.32"/>
            <value type="double" value="0.42"/>
            <value type="double" value="1"/>
          </property>
        </property>
      </property>
    </property>
  </property>
</channel>
IN
# No agents for keys, which would outlive the session.
sed -i 's/^<\/channel>/  <property name="startup" type="empty">\n    <property name="ssh-agent" type="empty"><property name="enabled" type="bool" value="false"\/><\/property>\n    <property name="gpg-agent" type="empty"><property name="enabled" type="bool" value="false"\/><\/property>\n  <\/property>\n&/' \
	"$xfce/xfconf/xfce-perchannel-xml/xfce4-session.xml"
sed -i 's/<property name="SaveOnExit".*/<property name="SaveOnExit" type="bool" value="false"\/>/' \
	"$xfce/xfconf/xfce-perchannel-xml/xfce4-session.xml"
sed -i 's/^WebBrowser=.*/WebBrowser=chromium/; s/^TerminalEmulator=.*/TerminalEmulator=xfce4-terminal/' "$xfce/helpers.rc"
rm -f "$root/etc/xdg/autostart/xscreensaver.desktop"

# The sandbox is the browser's sandbox: it may make no other one in here.
cat >"$root/etc/chromium.d/atoll" <<'IN'
export CHROMIUM_FLAGS="$CHROMIUM_FLAGS --no-sandbox --test-type --no-first-run --no-default-browser-check --password-store=basic --force-renderer-accessibility"
IN

# The root of noVNC's port shows the screen at once.
cat >"$root/usr/share/novnc/index.html" <<'IN'
<!DOCTYPE html>
<meta charset="utf-8">
<title>Desktop</title>
<script>location.replace("vnc.html?autoconnect=true&resize=scale&path=" + encodeURIComponent((location.pathname.replace(/[^/]*$/, "") + "websockify").slice(1)) + location.hash)</script>
IN

rm -rf "$root"/var/cache/debconf/*-old "$root"/var/log/*.log "$root"/var/log/apt/* "$root"/var/cache/fontconfig/* \
	"$root"/var/lib/dpkg/*-old "$root"/var/lib/dbus/machine-id
: >"$root/etc/machine-id"
