# Runs on the host after the packages are installed; $1 is the new root.
set -eu
root=$1

# The users. Both names stand for the same person, so that tools made for
# either find their home. Host ids never matter: sandboxes map them.
chroot "$root" sh -eu <<'IN'
groupadd -g 1000 atoll
groupadd -o -g 1000 daytona
useradd -u 1000 -g 1000 -d /home/daytona -s /bin/bash -c Atoll -m atoll
usermod -d /home/atoll atoll
useradd -o -u 1000 -g 1000 -d /home/daytona -s /bin/bash -c Atoll -M daytona
ln -s daytona /home/atoll
IN
cat >"$root/etc/sudoers.d/atoll" <<'IN'
atoll ALL=(ALL:ALL) NOPASSWD: ALL
daytona ALL=(ALL:ALL) NOPASSWD: ALL
IN
chmod 440 "$root/etc/sudoers.d/atoll"

# Processes in a sandbox may gain no privileges, so setuid programs do nothing
# there. The toolbox stands in for sudo; where it is absent, the real one is
# found next in the path.
ln -s /.atoll/toolbox "$root/usr/local/bin/sudo"

# pip installs beside the distribution's packages: the sandbox is thrown away.
rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED
echo 'path-exclude=/usr/lib/python3*/EXTERNALLY-MANAGED' >"$root/etc/dpkg/dpkg.cfg.d/pip"
ln -sf python3 "$root/usr/bin/python"

# npm install -g works without root; the path below ~/.local is searched.
echo 'prefix=${HOME}/.local' >"$root/home/daytona/.npmrc"
mkdir -p "$root/home/daytona/.local/bin"
chroot "$root" chown -R 1000:1000 /home/daytona

# apt as usual, without the settings of the build.
rm -f "$root"/etc/apt/apt.conf.d/99mmdebstrap
echo 'Acquire::Languages "none";' >"$root/etc/apt/apt.conf.d/90atoll"

printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
echo sandbox >"$root/etc/hostname"
rm -f "$root/etc/resolv.conf"
: >"$root/etc/resolv.conf"
: >"$root/etc/machine-id"

# Leave /tmp and apt's lists to mmdebstrap: its apt settings lie in /tmp until
# it has cleaned up, and without them apt would clean up the host.
rm -rf "$root"/var/cache/debconf/*-old "$root"/var/log/*.log "$root"/var/log/apt/*
