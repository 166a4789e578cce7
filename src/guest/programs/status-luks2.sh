# Says what the guest's kernel has of a mapping.
# PCI SERIAL NAME

. ./lib/disk.sh
. ./lib/luks.sh
. ./lib/unmounting.sh

know_disk "$1" "$2"
begin_luks "$3"
kept=0
if has_store; then kept=1; fi
echo "kept=$kept"
is_closed
if [ -n "$top" ]; then
  on_disk "$top" || fail LUKS_NAME_IN_USE "$mapping lies on another disk, or on none any more"
  describe
  case $table in *' crypt '*) ;; *) fail LUKS_STATUS_FAILED "the mapping is no encrypted one: $table" ;; esac
  read -r mapped_readonly < "/sys/block/$top/ro"
  header_at=$disk
  if [ "$kept" = 1 ]; then header_at=$store/header; fi
  echo "slots=$(count_slots "$header_at")"
  echo "luks_uuid=$(cryptsetup luksUUID "$header_at" 2> /dev/null)"
  echo "table=$table"
  echo "readonly=$mapped_readonly"
  read -r number < "/sys/block/$top/dev"
  numbers=" $number "
  tell_left
  echo "mapped=/dev/mapper/$mapping"
fi
echo "lower=$lower"
