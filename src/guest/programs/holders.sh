# Says who uses a disk.
# PCI SERIAL

. ./lib/disk.sh
. ./lib/busy.sh

find_disk "$1" "$2"
spell_numbers
own_mounts
set -f
for at in $points; do busy 0 "mount:$at"; done
set +f
other_mounts
stacked
open_files
