# Opens an encrypted disk, or encrypts an empty one, and mounts what is in it if that is asked for.
# PCI SERIAL NAME create|open|open_or_create_if_empty INTEGRITY(0|1) ephemeral|provided KEYBYTES READONLY(0|1)
# FSTYPE POINT POINT-AS-IN-MOUNTINFO OPTIONS never|if_empty never|repair|full SECTORSIZE UUID zero|data|look LOOKBYTES
# LOOKSECONDS; the key, twice, on stdin. FSTYPE is empty when nothing is to be mounted, UUID when any will do.

. ./lib/disk.sh
. ./lib/lock.sh
. ./lib/mounting.sh
. ./lib/luks.sh

find_disk "$1" "$2"
lock_disk
expect_openable
hold "/run/qshim-luks-$3.lock"
begin_luks "$3"
mode=$4 integrity=$5 source=$6 bytes=$7 readonly=$8 fs_wanted=$9
shift 9
mount_point=$1 mount_point_escaped=$2 mount_options=$3 mount_format=$4 fsck=$5 sector_size=$6 wanted_uuid=$7
proof_by "$8" "$9" "${10}"
opened='' marked='' created=0

fail() { # REASON DETAIL
  reason=$1 detail=$2
  if [ -n "$opened" ]; then
    # dm-crypt says in the kernel's log, and nowhere else, that what it read is not what was written.
    if [ -n "$marked" ] && dmesg 2> /dev/null | sed -n "/$marked/,\$p" | grep -q 'INTEGRITY .*ERROR'; then
      reason=LUKS_INTEGRITY_ERROR
    fi
    close_mapping
    is_closed || detail="$detail; and the mapping could not be taken away: $err"
  fi
  echo "error=$reason"
  echo "$detail" >&2
  exit 1
}

has_target() { # TARGET MODULE
  if [ -d "/sys/module/$2" ]; then return 0; fi
  /sbin/modprobe -q "$2" 2> /dev/null
  if [ -d "/sys/module/$2" ]; then return 0; fi
  dmsetup targets 2> /dev/null | grep -q "^$1 "
}
has_target crypt dm_crypt || fail GUEST_DM_CRYPT_MISSING 'dm-crypt'
if [ "$integrity" = 1 ]; then has_target integrity dm_integrity || fail GUEST_DM_CRYPT_MISSING 'dm-integrity'; fi

# cryptsetup ACTION with the key. Sets err.
run() { # ACTION [ARGUMENT ...]
  action=$1
  shift
  err=$(cryptsetup "$action" --type=luks2 ${header:+"$header"} "$key_file" ${key_size:+"$key_size"} "$@" 2>&1 <&3)
}

luks_format() {
  if [ "$source" = ephemeral ]; then
    make_store
    wipe_store
    # /dev/random waits until the guest's generator has been seeded, and never after that.
    (
      umask 077
      head -c 64 /dev/random > "$store/key"
    )
    [ "$(stat -c %s "$store/key")" = 64 ] || fail LUKS_FORMAT_FAILED 'no random key'
    # 512 random bits: no cost makes them harder to guess.
    set -- --pbkdf=pbkdf2 --pbkdf-force-iterations=1000 --luks2-metadata-size=16k --luks2-keyslots-size=512k
  else
    # A provided key may be worse than it should: argon2id with RFC 9106's memory (64 MiB, which a small guest has) and
    # one pass more.
    set -- --pbkdf=argon2id --pbkdf-memory=65536 --pbkdf-parallel=1 --pbkdf-force-iterations=4
  fi
  if [ "$integrity" = 1 ]; then set -- --integrity=hmac-sha256 --integrity-no-wipe "$@"; fi
  run luksFormat -q --cipher=aes-xts-plain64 --key-size=512 --sector-size="$sector_size" --hash=sha256 --use-random \
    --subsystem="qshim:$disk_sectors" "$@" "$disk"
  code=$?
  if [ "$code" = 3 ]; then fail LUKS_OUT_OF_MEMORY "$err"; fi
  [ "$code" = 0 ] || fail LUKS_FORMAT_FAILED "$err"
  if [ "$source" = ephemeral ]; then echo "$disk_sectors" > "$store/sectors"; fi
  created=1 fresh=1 recorded=$disk_sectors
}

# Why cryptsetup refused. A key slot whose bytes are damaged cannot be told from a wrong key: nobody can.
explain() { # CODE
  case $1 in
    2) fail LUKS_WRONG_KEY "$err" ;;
    3) fail LUKS_OUT_OF_MEMORY "$err" ;;
    5) fail LUKS_DISK_IN_USE "$err" ;;
  esac
  said=$err
  cryptsetup isLuks --type=luks2 "$header_at" 2> /dev/null || fail LUKS_HEADER_DAMAGED "$said"
  case $said in
    *'too small'* | *'beyond real size'*) fail LUKS_DEVICE_TRUNCATED "$said" ;;
  esac
  fail LUKS_OPEN_FAILED "$said"
}

is_wanted() { # UUID
  [ -z "$wanted_uuid" ] || [ "$1" = "$wanted_uuid" ] || fail LUKS_DEVICE_SWAPPED "its UUID is $1"
}

luks_open() {
  if [ -n "$recorded" ] && [ "$disk_sectors" -lt "$recorded" ]; then
    fail LUKS_DEVICE_TRUNCATED "it has $disk_sectors sectors of 512 bytes; it had $recorded"
  fi
  set --
  if [ "$integrity" = 1 ]; then
    set -- --integrity-no-journal
    marked="qshim-$mapping-$$"
    echo "$marked" > /dev/kmsg
  fi
  read -r locked < "/sys/block/$disk_name/ro"
  if [ "$locked" = 1 ] || { [ "$readonly" = 1 ] && [ "$created" = 0 ]; }; then set -- "$@" --readonly; fi
  run open "$@" "$disk" "$mapping"
  code=$?
  if [ "$code" = 0 ]; then opened=1; else explain "$code"; fi
}

no_luks() { # what the disk holds instead
  if [ "$mode" = open ]; then fail LUKS_NO_HEADER "$1"; fi
  fail GUEST_DISK_NOT_EMPTY "$1"
}

may_create() {
  if [ "$mode" = open ]; then fail LUKS_NO_HEADER "$1"; fi
  read -r locked < "/sys/block/$disk_name/ro"
  [ "$locked" = 0 ] || fail LUKS_FORMAT_FAILED 'the disk is read-only'
}

# Opens what is there or makes it: what the disk holds decides, never how an opening failed.
ephemeral() {
  if has_store; then
    if [ "$mode" != create ]; then
      read -r recorded < "$store/sectors"
      luks_open
      return
    fi
    blank || fail GUEST_DISK_NOT_EMPTY 'it is in use under this name already, and its key is still here'
  fi
  probe
  kept='neither its key nor its header is in this guest'
  if [ "$code" = 126 ] || [ "$code" = 127 ]; then fail GUEST_TOOL_MISSING 'blkid of util-linux'; fi
  { [ "$code" = 2 ] && blank; } || no_luks "$kept, and it is not empty"
  may_create "$kept"
  luks_format
  luks_open
}

provided() {
  probe
  case $code in
    0)
      [ -n "$known" ] || fail GUEST_TOOL_MISSING 'blkid of util-linux (only another blkid is there)'
      [ "$kind" = crypto_LUKS ] || no_luks "it holds ${kind:-a partition table or the like}"
      if [ "$mode" = create ]; then fail GUEST_DISK_NOT_EMPTY 'it is encrypted already'; fi
      [ "$version" = 2 ] || fail LUKS_VERSION_UNSUPPORTED "it says version $version"
      is_wanted "$uuid"
      case $subsystem in
        qshim:*[!0-9]* | qshim:) ;;
        qshim:*) recorded=${subsystem#qshim:} ;;
      esac
      luks_open
      ;;
    2)
      blank || no_luks 'it holds nothing that blkid knows, and is not all zero: a header may have been there'
      may_create 'it is blank'
      luks_format
      luks_open
      ;;
    126 | 127) fail GUEST_TOOL_MISSING 'blkid of util-linux' ;;
    *) no_luks "what it holds is not clear (blkid ended with $code) $out" ;;
  esac
}

# It is open already, by an earlier call that was not heard to the end. The key must be right all the same.
reuse() {
  on_disk "$top" || fail LUKS_NAME_IN_USE "$mapping lies on another disk, or on none any more"
  run open --test-passphrase "$disk"
  code=$?
  if [ "$code" != 0 ]; then explain "$code"; fi
}

recorded=
key_options "$source" "$bytes"
find_mapping "$mapping"
if [ -n "$top" ]; then
  reuse
else
  close_mapping
  case $source in
    ephemeral) ephemeral ;;
    provided) provided ;;
  esac
fi
find_mapping "$mapping"
{ [ -n "$top" ] && on_disk "$top"; } || fail LUKS_OPEN_FAILED 'the mapping is not there afterwards'
describe
case $table in
  *' crypt '*' integrity:'*) protected=1 ;;
  *' crypt '*) protected=0 ;;
  *) fail LUKS_OPEN_FAILED "the mapping is no encrypted one: $table" ;;
esac
[ "$protected" = "$integrity" ] || fail LUKS_INTEGRITY_MISMATCH "integrity of the disk: $protected, asked for: $integrity"
luks_uuid=$(cryptsetup luksUUID "$header_at" 2> /dev/null)
if [ "$created" = 0 ]; then is_wanted "$luks_uuid"; fi
slots=1
if [ "$source" = provided ] && [ "$created" = 0 ]; then slots=$(count_slots "$disk"); fi
read -r mapped_readonly < "/sys/block/$top/ro"
read -r mapped_sectors < "/sys/block/$top/size"

# From here on the device is the mapping.
name=$top dev=/dev/mapper/$mapping
read -r number < "/sys/block/$name/dev"
# udev may not run here; a name may have been left over by a mapping that went away by itself.
[ "$dev" -ef "/dev/$name" ] || dmsetup mknodes "$mapping" > /dev/null 2>&1
[ -b "$dev" ] || fail LUKS_OPEN_FAILED "there is no $dev"

# Nobody has ever written through the mapping: the bytes below it are zero, which no ciphertext is. (With integrity there is no
# such proof.) Zeroes are never seen in the mapping itself: they would be deciphered.
blank() {
  ends_zero && all_zero "$disk" "$((start / 4096))" "$size"
}
ends_zero() {
  [ "$protected" = 0 ] || return 1
  find_offset
  start=$((offset * 512))
  size=$((disk_sectors * 512 - start)) head=1048576
  { [ $((start % 4096)) = 0 ] && [ "$size" -ge 4096 ]; } || return 1
  if [ "$head" -gt "$size" ]; then head=$size; fi
  dd if="$disk" bs=4096 skip="$((start / 4096))" count=257 2> /dev/null | cmp -n "$head" - /dev/zero > /dev/null 2>&1
}

# Without a wipe no sector can be read before it was written: give blkid, and mkfs itself, the places where they look
# for older contents. blkid looks up to 4 MiB from the start (the second header of LUKS2), and from
# 3087 sectors before the end (Promise RAID).
write_ends() {
  mib=$((mapped_sectors / 2048)) from=0
  if [ "$mib" -gt 8 ]; then from=$((mib - 3)); fi
  dd if=/dev/zero of="$dev" bs=1048576 count=5 2> /dev/null
  dd if=/dev/zero of="$dev" bs=1048576 seek="$from" 2> /dev/null
  sync "$dev" 2> /dev/null || sync
}

if [ -n "$fs_wanted" ]; then
  set --
  if [ "$protected" = 1 ] && [ -n "$fresh" ]; then
    write_ends
    case $fs_wanted in
      ext4) set -- -E lazy_itable_init=0,lazy_journal_init=0,nodiscard ;;
      xfs) set -- -K ;;
    esac
  fi
  prepare_mount "$fs_wanted" "$mount_point" "$mount_point_escaped" "$mount_options" "$mount_format" "$@"
  echo "formatted=$formatted"
  echo "uuid=$uuid"
fi
echo "mapped=$dev"
echo "created=$created"
echo "table=$table"
echo "readonly=$mapped_readonly"
echo "slots=$slots"
echo "luks_uuid=$luks_uuid"
