# Sets the size of a process's terminal.
# KEY COLUMNS ROWS

. ./lib/containers.sh

cd "$R/c/$1" || fail CONTAINER_FAILED
is_alive || exit 0
stty -F "/proc/$pid/fd/0" rows "$3" cols "$2" || ! is_alive || fail CONTAINER_FAILED
