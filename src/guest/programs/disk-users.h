/*
 * Whether anybody in the guest uses disks: the quick look of qshim-uevents, for the daemon (src/guest/quick-look.ts).
 *
 * It looks where holders.sh looks, in a tenth of its time, and tells less: only of which disks it has seen that nobody uses
 * them. Of a disk that it finds a use of, or cannot be sure about, it says nothing, and the daemon sends the script. So silence
 * is never a leave.
 *
 * Nothing is opened on a disk, and files are looked at without asking their file systems (AT_STATX_DONT_SYNC): neither may
 * answer.
 */
#include "bare.h"
#include <asm/errno.h>
#include <linux/fcntl.h>
#include <linux/stat.h>

/* More than a sandbox has slots. */
#define DISKS_MAX 256
/* Device numbers: each disk and its partitions. */
#define NUMBERS_MAX 4096
#define NAMESPACES_MAX 256
#define PATH_BYTES 512
/* Lines of an answer that go together: the daemon takes at most 128 variables for one announcement. */
#define LINES_MAX 64

struct disk {
  /* Of the question. A disk is used through its PCI function, or not at all. */
  const char *pci;
  /* Empty until it was found. */
  char name[32];
  int used;
};

static struct disk disks[DISKS_MAX];
static int disk_count;
static struct {
  unsigned long number;
  int disk;
} numbers[NUMBERS_MAX];
static int number_count;
static char namespaces[NAMESPACES_MAX][48];
static int namespace_count;
/* Something could not be looked at: nobody knows what it hides. */
static int unsure;
static char line_buffer[65536];

static unsigned long length(const char *text) {
  unsigned long n = 0;
  while (text[n]) n++;
  return n;
}

/* Where text goes on behind start; NULL when it does not begin so. */
static const char *after(const char *text, const char *start) {
  while (*start)
    if (*text++ != *start++) return 0;
  return text;
}

static int is_digit(char c) { return c >= '0' && c <= '9'; }

static int same(const char *a, const char *b) {
  const char *rest = after(a, b);
  return rest && !*rest;
}

/* The disk itself or a partition of it: vda, vda1, but not vdab. */
static int is_part_of(const char *name, const char *disk) {
  const char *rest = after(name, disk);
  if (!rest) return 0;
  return !*rest || is_digit(*rest) || (*rest == '-' && is_digit(rest[1]));
}

/* Joins texts, up to a NULL. What does not fit makes the look unsure, and the path one that is nowhere. */
static char *join(char *into, const char *const *texts) {
  unsigned long n = 0;
  for (; *texts; texts++)
    for (const char *c = *texts; *c; c++) {
      if (n == PATH_BYTES - 1) {
        unsure = 1;
        into[0] = 0;
        return into;
      }
      into[n++] = *c;
    }
  into[n] = 0;
  return into;
}
#define PATH(...) join((char[PATH_BYTES]){}, (const char *const[]){__VA_ARGS__, 0})

static void used_number(unsigned long number) {
  for (int n = 0; n < number_count; n++)
    if (numbers[n].number == number) disks[numbers[n].disk].used = 1;
}

static unsigned long number_of(unsigned long major, unsigned long minor) { return major << 20 | minor; }

/* "254:0" or "fe:00": a device number, and where the text goes on; NULL for anything else. */
static const char *read_number(const char *text, unsigned base, unsigned long *number) {
  unsigned long parts[2] = {0, 0};
  for (int part = 0; part < 2; part++) {
    const char *from = text;
    for (;; text++) {
      unsigned digit = is_digit(*text) ? *text - '0' : *text >= 'a' && *text <= 'f' ? *text - 'a' + 10 : 99;
      if (digit >= base) break;
      parts[part] = parts[part] * base + digit;
    }
    if (text == from || (part == 0 && *text++ != ':')) return 0;
  }
  *number = number_of(parts[0], parts[1]);
  return text;
}

static const char *next_field(const char *text) {
  while (*text && *text != ' ') text++;
  while (*text == ' ') text++;
  return text;
}

/* A process may end while it is looked at: then it uses nothing. */
static int has_ended(long result) { return result == -ENOENT || result == -ESRCH || result == -ENOTDIR; }

/* Calls act for each line of a file. Returns the number of lines; a file that is not there has none. */
static int each_line(const char *path, void (*act)(const char *line)) {
  int lines = 0;
  unsigned long kept = 0;
  long fd = call3(__NR_open, (long)path, O_RDONLY | O_CLOEXEC, 0);
  if (fd < 0) {
    if (!has_ended(fd)) unsure = 1;
    return 0;
  }
  for (;;) {
    long got = call3(__NR_read, fd, (long)line_buffer + kept, sizeof line_buffer - 1 - kept);
    if (got <= 0) {
      if (got < 0 && !has_ended(got)) unsure = 1;
      break;
    }
    char *from = line_buffer, *end = line_buffer + kept + got;
    for (char *at = line_buffer + kept; at < end; at++) {
      if (*at != '\n') continue;
      *at = 0;
      act(from);
      lines++;
      from = at + 1;
    }
    kept = end - from;
    if (kept == sizeof line_buffer - 1) {
      unsure = 1;
      break;
    }
    for (unsigned long n = 0; n < kept; n++) line_buffer[n] = from[n];
  }
  call3(__NR_close, fd, 0, 0);
  return lines;
}

struct entry {
  unsigned long inode, offset;
  unsigned short bytes;
  unsigned char type;
  char name[];
};

/* Calls act for each name in a directory that is no dot, with the directory. One that is not there has none, and 0. */
static int each_name(int at, const char *path, void (*act)(int directory, const char *name)) {
  /* A directory may be walked for each name of another: the buffer is each walk's own. */
  char buffer[4096] __attribute__((aligned(8)));
  long got;
  int directory = call6(__NR_openat, at, (long)path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, 0, 0);
  if (directory < 0) {
    if (!has_ended(directory)) unsure = 1;
    return 0;
  }
  while ((got = call3(__NR_getdents64, directory, (long)buffer, sizeof buffer)) > 0)
    for (long offset = 0; offset < got;) {
      const struct entry *entry = (const struct entry *)(buffer + offset);
      offset += entry->bytes;
      if (entry->name[0] != '.') act(directory, entry->name);
    }
  if (got < 0 && !has_ended(got)) unsure = 1;
  call3(__NR_close, directory, 0, 0);
  return 1;
}

/* The first line of a small file; empty when it is not there. */
static const char *first_line(int at, const char *path) {
  static char text[256];
  long fd = call6(__NR_openat, at, (long)path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
  long got = fd < 0 ? fd : call3(__NR_read, fd, (long)text, sizeof text - 1);
  if (fd >= 0) call3(__NR_close, fd, 0, 0);
  if (got < 0 && !has_ended(got)) unsure = 1;
  if (got < 0) got = 0;
  text[got] = 0;
  for (char *c = text; *c; c++)
    if (*c == '\n') *c = 0;
  return text;
}

/* The disk at hand. */
static int current;

static void found_holder(int directory, const char *name) {
  (void)directory, (void)name;
  disks[current].used = 1;
}

/*
 * A disk or a partition of /sys/class/block, a link to "../../devices/pci0000:00/.../0000:01:1f.0/virtio5/block/vda/vda1": what
 * it has for a number, and what the kernel has made of it.
 */
static void look_at_block(int directory, const char *name) {
  char link[PATH_BYTES];
  long got = call6(__NR_readlinkat, directory, (long)name, (long)link, sizeof link - 1, 0, 0);
  if (got < 0) {
    if (!has_ended(got)) unsure = 1;
    return;
  }
  link[got] = 0;
  const char *tail = 0;
  for (const char *at = link; *at && !tail; at++)
    for (current = 0; current < disk_count; current++) {
      const char *rest = *at == '/' ? after(at + 1, disks[current].pci) : 0;
      tail = rest ? after(rest, "/virtio") : 0;
      if (tail) break;
    }
  if (!tail) return;
  while (is_digit(*tail)) tail++;
  tail = after(tail, "/block/");
  unsigned long number;
  if (!tail || number_count == NUMBERS_MAX || !read_number(first_line(directory, PATH(name, "/dev")), 10, &number)) {
    unsure = 1;
    return;
  }
  numbers[number_count].number = number;
  numbers[number_count++].disk = current;
  each_name(directory, PATH(name, "/holders"), found_holder);
  if (!same(tail, name)) return;
  if (length(name) >= sizeof disks[current].name) unsure = 1;
  else
    for (unsigned long n = 0; n <= length(name); n++) disks[current].name[n] = name[n];
}

/* A path of a device in a file of the kernel's, with anything behind it. */
static void used_path(const char *path) {
  const char *device = after(path, "/dev/");
  for (int n = 0; device && n < disk_count; n++) {
    const char *rest = disks[n].name[0] ? after(device, disks[n].name) : 0;
    if (rest && (!*rest || *rest == ' ' || *rest == '\t' || is_digit(*rest))) disks[n].used = 1;
  }
}

static void used_name(int directory, const char *name) {
  (void)directory;
  for (int n = 0; n < disk_count; n++)
    if (disks[n].name[0] && is_part_of(name, disks[n].name)) disks[n].used = 1;
}

static void look_at_loop(int directory, const char *name) {
  if (after(name, "loop")) used_path(first_line(directory, PATH(name, "/loop/backing_file")));
}

/* ext4, xfs and others have a directory for each mounted device; btrfs one for each file system, with its devices. */
static void look_at_mounted(int directory, const char *name) {
  each_name(directory, PATH(name, "/devices"), used_name);
}

static void look_at_type(int directory, const char *name) {
  each_name(directory, name, used_name);
  if (same(name, "btrfs")) each_name(directory, name, look_at_mounted);
}

static void look_at_mount(const char *line) {
  unsigned long number;
  if (read_number(next_field(next_field(line)), 10, &number)) used_number(number);
  else unsure = 1;
}

static void look_at_mapping(const char *line) {
  unsigned long number;
  if (read_number(next_field(next_field(next_field(line))), 16, &number)) used_number(number);
  else unsure = 1;
}

/* What a link of /proc leads to: a file on a disk, or the disk itself. 0 when it leads nowhere. */
static int look_at_open(int directory, const char *name) {
  struct statx seen;
  long result = call6(__NR_statx, directory, (long)name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE, (long)&seen, 0);
  if (result < 0) {
    if (!has_ended(result)) unsure = 1;
    return 0;
  }
  used_number(number_of(seen.stx_dev_major, seen.stx_dev_minor));
  if ((seen.stx_mode & S_IFMT) == S_IFBLK) used_number(number_of(seen.stx_rdev_major, seen.stx_rdev_minor));
  return 1;
}

static void look_at_descriptor(int directory, const char *name) { look_at_open(directory, name); }

/* Each mount namespace is looked at once. */
static int is_known_namespace(void) {
  char *link = namespaces[namespace_count];
  if (namespace_count == NAMESPACES_MAX - 1) {
    unsure = 1;
    return 1;
  }
  long got = call3(__NR_readlink, (long)"ns/mnt", (long)link, sizeof namespaces[0] - 1);
  if (got < 0) {
    if (!has_ended(got)) unsure = 1;
    return 1;
  }
  link[got] = 0;
  for (int n = 0; n < namespace_count; n++)
    if (same(namespaces[n], link)) return 1;
  return 0;
}

static void look_at_process(int directory, const char *name) {
  /* Threads of the kernel have no program; what else they have is the first process's. Nor has a process that is ending. */
  if (!is_digit(name[0]) || !look_at_open(directory, PATH(name, "/exe"))) return;
  long result = call3(__NR_fchdir, directory, 0, 0);
  if (result >= 0) result = call3(__NR_chdir, (long)name, 0, 0);
  if (result < 0) {
    if (!has_ended(result)) unsure = 1;
    return;
  }
  each_name(AT_FDCWD, "fd", look_at_descriptor);
  look_at_open(AT_FDCWD, "cwd");
  look_at_open(AT_FDCWD, "root");
  /* Known from now on, if it was there to be looked at. */
  if (!is_known_namespace() && each_line("mountinfo", look_at_mount) > 0) namespace_count++;
  each_line("maps", look_at_mapping);
}

/* Takes "PCI PCI ..." apart, in place. 0 when there are none, or too many. */
static int take_question(char *text) {
  disk_count = 0;
  while (*text) {
    if (disk_count == DISKS_MAX) return 0;
    disks[disk_count++].pci = text;
    while (*text && *text != ' ') text++;
    if (*text) *text++ = 0;
  }
  return disk_count > 0;
}

static char answer[8192];
static unsigned long answer_bytes;

static void put(const char *text) {
  while (*text && answer_bytes < sizeof answer - 1) answer[answer_bytes++] = *text++;
}

/* The end of a string. An answer that is too long has lost its last ones, which then are not told. */
static void put_end(void) {
  if (answer_bytes < sizeof answer) answer[answer_bytes++] = 0;
}

/*
 * In the form of an announcement of the kernel's, so that both can share a port: "answer@/ID", "N=PCI" for each disk that
 * nobody uses, and "SEQNUM=0" as the last one; "looked=1" when that was all.
 */
static void send_answer(int port, const char *id) {
  for (int from = 0; from <= disk_count; from += LINES_MAX) {
    int to = from + LINES_MAX;
    answer_bytes = 0;
    put("answer@/"), put(id), put_end();
    for (int n = from; n < to && n < disk_count; n++) {
      const char digits[] = {'0' + n / 100, '0' + n / 10 % 10, '0' + n % 10, '=', 0};
      if (!disks[n].name[0] || disks[n].used) continue;
      put(digits), put(disks[n].pci), put_end();
    }
    if (to > disk_count) put("looked=1"), put_end();
    put("SEQNUM=0"), put_end();
    call3(__NR_write, port, (long)answer, answer_bytes);
  }
}

/* Answers "unused ID PCI ...", or does not. */
static void answer_question(int port, char *question) {
  char *id = (char *)after(question, "unused ");
  if (!id) return;
  char *rest = id;
  while (*rest && *rest != ' ') rest++;
  if (!*rest) return;
  *rest++ = 0;
  if (length(id) > 64 || !take_question(rest)) return;
  if (!each_name(AT_FDCWD, "/sys/class/block", look_at_block)) return;
  each_line("/proc/swaps", used_path);
  each_name(AT_FDCWD, "/sys/block", look_at_loop);
  each_name(AT_FDCWD, "/sys/fs", look_at_type);
  each_name(AT_FDCWD, "/proc/fs/jbd2", used_name);
  each_name(AT_FDCWD, "/proc", look_at_process);
  /* That a look which cannot be taken finds nothing would mean that nobody uses the disk. So it is tried on what is there. */
  if (namespace_count == 0 || !look_at_open(AT_FDCWD, "/proc/1/exe")) unsure = 1;
  if (!unsure) send_answer(port, id);
}
