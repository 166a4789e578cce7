# What the scripts of containers share. For the POSIX shell of busybox. Output is lines key=value; error=REASON is a refusal,
# explained on stderr. What lies in /run/qshim/c is told in containers/container.sh.

# shellcheck disable=SC2034 # for the scripts
R=/run/qshim
export PATH=/usr/sbin:/usr/bin:/sbin:/bin

fail() { # REASON [DETAIL]
  echo "error=$1"
  [ -z "$2" ] || echo "$2" >&2
  exit 0
}

# crun's own words.
log() { [ -s log ] && cat log >&2; }

# Why crun may have refused, of which it says little: what it starts in a container counts as one of the container's processes.
full() { # ID
  { read -r max < "/sys/fs/cgroup/qshim/$1/pids.max" && read -r _ refused < "/sys/fs/cgroup/qshim/$1/pids.events"; } 2> /dev/null
  [ "${refused:-0}" -gt 0 ] && echo "the container may have $max processes; it has asked for more $refused times" >&2
}

ticks_of() { # PID; sets ticks
  ticks=
  read -r stat 2> /dev/null < "/proc/$1/stat" || return 1
  # Field 22: the 20th behind the command, which is in brackets and may hold anything.
  read -r _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ ticks _ << END
${stat##*) }
END
}

# What crun tells the hook that holds a container with a terminal back.
pid_of_state() { # sets pid
  read -r state < ./state
  pid=${state##*'"pid":'}
  pid=${pid%%,*}
}

# conmon and crun end their files without a newline, for which read answers 1. Where a hook holds back there is no pid file yet.
is_alive() { # sets pid
  pid='' known=''
  [ -s ticks ] || return 1
  if [ -s pid ]; then
    read -r pid < ./pid
  else
    { [ -p go ] && [ -s state ]; } || return 1
    pid_of_state
  fi
  read -r known < ticks
  ticks_of "$pid" && [ "$ticks" = "$known" ]
}
