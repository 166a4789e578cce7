# Prints device=MAJOR:MINOR for each disk, in order.
# [PCI SERIAL] ...

. ./lib/containers.sh

while [ $# -gt 1 ]; do
  found=
  for block in /sys/bus/pci/devices/"$1"/virtio*/block/*; do
    [ -e "$block/dev" ] && read -r found < "$block/dev"
    serial=
    [ -e "$block/serial" ] && read -r serial < "$block/serial"
  done
  [ -n "$found" ] || fail GUEST_DISK_NOT_FOUND "no disk at $1"
  [ "$serial" = "$2" ] || fail GUEST_DISK_MISMATCH "the disk at $1 calls itself $serial, not $2"
  echo "device=$found"
  shift 2
done
