# The end of a process with what it has started. For the POSIX shell of busybox.

# Ends a process, all below it and, where it leads a session, all in that. They are stopped first, so that none makes another
# meanwhile. What has left both its parents and its session (a daemon) is not found.
end_tree() { # PID
  kill -STOP "$1" 2> /dev/null
  tree=" $1 "
  more=1
  while [ -n "$more" ]; do
    more=
    for path in /proc/[0-9]*/stat; do
      { read -r line < "$path"; } 2> /dev/null || continue
      # PID (COMMAND) STATE PARENT GROUP SESSION ...: the command may hold anything.
      pid=${line%% *} rest=${line##*) }
      rest=${rest#? } parent=${rest%% *}
      rest=${rest#* } rest=${rest#* } session=${rest%% *}
      case $tree in *" $pid "*) continue ;; esac
      case $session$tree in
        "$1 "* | *" $parent "*)
          kill -STOP "$pid" 2> /dev/null
          tree="$tree$pid " more=1
          ;;
      esac
    done
  done
  # shellcheck disable=SC2086 # one word each
  kill -KILL $tree 2> /dev/null
}
