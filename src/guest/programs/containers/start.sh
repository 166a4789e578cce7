# Starts a container that was created.
# ID

. ./lib/containers.sh

cd "$R/c/$1" || fail CONTAINER_FAILED
: > started
: > log
if [ -p go ]; then
  echo go 1<> go
  until [ -s pid ]; do
    [ -e failed ] && {
      log
      fail CONTAINER_REFUSED
    }
    sleep 0.01
  done
else
  crun --log=log start "$1" || {
    rm -f started
    log
    fail CONTAINER_REFUSED
  }
fi
echo started=1
