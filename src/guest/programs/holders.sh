# Says who uses disks, of several at once: disk=PCI NUMBERS of each that is there, missing=PCI REASON of each that is not,
# use=NUMBER PID WHAT COMMAND of each use; and looked=1 at the end, without which nothing is known.
# PCI SERIAL ...

. ./lib/disk.sh
. ./lib/busy.sh

busy() { # PID WHAT NUMBER
  command_of "$1"
  echo "use=$3 $1 $2 $who"
}

mounted_here() {
  while read -r _ _ device _ at _; do
    case $all in *" $device "*) busy 0 "mount:$at" "$device" ;; esac
  done < /proc/self/mountinfo
}

uses() {
  numbers=$all
  mounted_here
  if [ "$all" != ' ' ]; then
    other_mounts
    open_files
  fi
  for each_name in $names; do
    name=$each_name dev=/dev/$each_name
    { read -r number < "/sys/block/$name/dev"; } 2> /dev/null && stacked
  done
}

expect_sight
all=' ' names=''
while [ $# -gt 1 ]; do
  if look_for_disk "$1" "$2"; then
    echo "disk=$1$numbers"
    all="$all${numbers# }" names="$names $name"
  else
    echo "missing=$1 $reason"
  fi
  shift 2
done
numbers=$all
spell_numbers
found=$(uses)
# Whoever looks at a disk that was just closed (udev does) lets go of it by itself.
if [ -n "$found" ]; then
  sleep 0.5
  found=$(uses)
fi
if [ -n "$found" ]; then echo "$found"; fi
for each_name in $names; do
  name=$each_name
  { read -r number < "/sys/block/$name/dev"; } 2> /dev/null && alive
done
echo looked=1
