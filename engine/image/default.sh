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

# The language server for TypeScript, which the distribution lacks. It needs
# nothing but TypeScript. npm's settings on the host say where it comes from, and
# the sum which bytes it is. An image without it works; the toolbox says what is
# missing there.
lsp=typescript-language-server
sum=d294387df01aaec7f5d15c05872cb2a8d261b83778afa7f8752b10377f1675b437595c6a8b4f29fdb23ffefd559ce57909255de0078e518fe37c96217874d03d
temp=$(mktemp -d)
fetch() { # on the host if it has npm, else with the image's
	if command -v npm >/dev/null; then
		(cd "$temp" && timeout 120 npm pack --silent --fetch-retries=1 "$lsp@4.3.4")
	else
		timeout 120 chroot "$root" sh -c 'cd /root && npm pack --silent --fetch-retries=1 "$1"' sh "$lsp@4.3.4" &&
			mv "$root"/root/*.tgz "$temp"
		rm -rf "$root/root/.npm"
	fi
}
if fetch >/dev/null && echo "$sum  $(echo "$temp"/*.tgz)" | sha512sum -c --status; then
	modules=$root/usr/local/lib/node_modules
	mkdir -p "$modules/$lsp"
	tar -xzf "$temp"/*.tgz -C "$modules/$lsp" --strip-components=1 --no-same-owner --no-same-permissions \
		package/package.json package/LICENSE package/lib/cli.mjs
	chmod 755 "$modules/$lsp/lib/cli.mjs"
	ln -s "/usr/local/lib/node_modules/$lsp/lib/cli.mjs" "$root/usr/local/bin/$lsp"
	ln -s /usr/share/nodejs/typescript "$modules/typescript"
else
	echo "W: $lsp cannot be fetched; the image is built without it" >&2
fi
rm -rf "$temp"

# Large and of no use here: a tool that shows what compilers pass on between
# themselves, and a second copy of TypeScript under its old name.
rm -f "$root"/usr/bin/*-lto-dump-* "$root"/usr/bin/lto-dump*
ln -sf typescript.js "$root/usr/share/nodejs/typescript/lib/typescriptServices.js"

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
