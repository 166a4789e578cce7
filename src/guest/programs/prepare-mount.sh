# Mounts a disk, and before that formats it if that is asked for and it is empty.
# PCI SERIAL FSTYPE POINT POINT-AS-IN-MOUNTINFO OPTIONS never|if_empty never|repair|full zero|noise|data|look LOOKBYTES
# LOOKSECONDS PARTITION|0

. ./lib/disk.sh
. ./lib/lock.sh
. ./lib/mounting.sh

find_disk "$1" "$2"
lock_disk
expect_openable
fsck=$8
# Below the host's encryption nothing is zero; who sees the bytes below has seen that nobody ever wrote.
if [ "$9" = noise ]; then
  blank() { :; }
  ends_zero() { :; }
fi
proof_by "$9" "${10}" "${11}"
if [ "${12}" != 0 ]; then find_partition "${12}"; fi
prepare_mount "$3" "$4" "$5" "$6" "$7"
echo "formatted=$formatted"
echo "uuid=$uuid"
