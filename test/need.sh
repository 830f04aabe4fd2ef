#!/usr/bin/env bash
# Installs Debian packages when a command or file that they bring is not there:
#
#	test/need.sh STEP COMMAND-OR-FILE... -- PACKAGE...
set -euo pipefail
step=$1
shift
missing=
while [ "$1" != -- ]; do
	if ! [ -e "$1" ] && ! command -v "$1" >/dev/null; then
		missing=$1
	fi
	shift
done
shift
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "$step: $missing is not there; needs: sudo apt-get install $*" >&2
	exit 1
fi
echo "$step: installing $*" >&2
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null
