# Puts the player of identities (player.c) into a template's guest and starts it, in the first directory from which it runs;
# and puts files that can be written over those of the kernel that cannot. Prints which of them there are: KIND=PATH.
# PORTNAME; the player on stdin

PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
export PATH LC_ALL
umask 077

fail() { # DETAIL
  echo "error=$1"
  exit 1
}

port=
for path in /sys/class/virtio-ports/*; do
  name=
  if [ -e "$path/name" ]; then read -r name < "$path/name"; fi
  if [ "$name" = "$1" ]; then port=/dev/${path##*/}; fi
done
[ -c "$port" ] || fail "no port named $1"
[ -w /run ] || fail 'no writable /run'
cat > /run/qshim-player
player=
for directory in /run /dev/shm /tmp /var/tmp; do
  if [ "$directory" != /run ]; then cp /run/qshim-player "$directory/qshim-player" || continue; fi
  chmod 700 "$directory/qshim-player"
  # Without a port it ends with 1. From a file system mounted noexec it does not begin.
  "$directory/qshim-player" < /dev/null > /dev/null 2>&1
  if [ $? = 1 ]; then
    player=$directory/qshim-player
    break
  fi
done
[ -n "$player" ] || fail 'no directory to run a program from'

cover() { # KIND FILE MODE
  if ! [ -e "$2" ]; then return; fi
  read -r now < "$2" && echo "$now" > "/run/qshim-$1" && chmod "$3" "/run/qshim-$1" &&
    mount --bind "/run/qshim-$1" "$2" && echo "$1=/run/qshim-$1"
}
cover productUuid /sys/devices/virtual/dmi/id/product_uuid 400
cover bootId /proc/sys/kernel/random/boot_id 444
if [ -f /etc/machine-id ] && [ -w /etc/machine-id ]; then
  id=
  read -r id < /etc/machine-id
  if [ ${#id} = 32 ]; then echo machineId=/etc/machine-id; fi
fi
"$player" "$port" < /dev/null > /dev/null 2>&1 &
exit 0
