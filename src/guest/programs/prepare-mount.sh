# Mounts a disk, and before that formats it if that is asked for and it is empty.
# PCI SERIAL FSTYPE POINT POINT-AS-IN-MOUNTINFO OPTIONS never|if_empty never|repair|full UNWRITTEN(0|1) PARTITION|0

. ./lib/disk.sh
. ./lib/lock.sh
. ./lib/mounting.sh

find_disk "$1" "$2"
lock_disk
expect_openable
# Below the host's encryption nothing is zero; who sees the bytes below has seen that nobody ever wrote.
fsck=$8
if [ "$9" = 1 ]; then
  blank() { :; }
fi
if [ "${10}" != 0 ]; then find_partition "${10}"; fi
prepare_mount "$3" "$4" "$5" "$6" "$7"
echo "formatted=$formatted"
echo "uuid=$uuid"
