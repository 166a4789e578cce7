# What the kernel says of a device while something is done with it. A mark in its log tells the beginning.

# To be called right before. A guest that does not let us write there has no kernel's reasons.
kernel_begins() {
  read -r uptime _ < /proc/uptime
  mark="qshim: $$ at $uptime"
  { echo "<7>$mark" > /dev/kmsg; } 2> /dev/null || mark=
}

# Sets reasons: the last two lines since then that name the device, or the kind of file system, each on a line of its own.
# shellcheck disable=SC2034 # what it sets is for the script
kernel_said() { # NAME FSTYPE
  reasons=
  [ -n "$mark" ] || return 0
  reasons=$(dmesg 2> /dev/null | sed -e "1,/$mark\$/d" -e 's/^\[[^]]*\] //' |
    grep -e "($1)" -e " $1[,: ]" -e "^$2: " | tail -n 2 | sed 's/^/kernel: /')
}
