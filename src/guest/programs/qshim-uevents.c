/*
 * qshim-uevents PORT: passes on what the kernel announces of virtio disks to a virtio-serial port, and answers there which
 * of some disks nobody uses (disk-users.h).
 *
 * Any writer of whole uevents will do in its place (docs/guest.md has one made of socat); this one costs less:
 * - A filter in the kernel lets through disks only, where a disk makes ten announcements: each that is passed on is a trip through
 *   QEMU's main loop, which is busy just then.
 * - It never waits for the host: on a port that is opened without O_NONBLOCK Linux spins until QEMU has taken each write, with a
 *   lock held. What nobody on the host takes is thrown away, and so is never old when somebody listens again.
 *
 * It ends with 1 when it cannot begin.
 */
#include "disk-users.h"
#include <asm/socket.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/poll.h>
#include <linux/signal.h>

/* Not in the kernel's headers for programs. */
#define AF_NETLINK 16
#define SOCK_RAW 3
/* The group to which the kernel itself sends. */
#define KERNEL_GROUP 1
/* More than any message. */
#define WHOLE 0x40000
/* Between two looks whether anybody on the host listens. */
#define AWAY_MS 200
/* The daemon waits for an answer for less. */
#define LOOK_SECONDS_MAX 10

#define WORD(a, b, c, d) ((unsigned)(a) << 24 | (b) << 16 | (c) << 8 | (d))
#define LOAD(offset) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset)
#define UNLESS(word, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, word, 0, skip)
#define ACCEPT BPF_STMT(BPF_RET | BPF_K, WHOLE)
#define REJECT BPF_STMT(BPF_RET | BPF_K, 0)

/* One to three digits of "virtio5", and "add@" or "remove@" in front. */
#define ACCEPT_BLOCK_AT(offset) LOAD(offset), UNLESS(WORD('/', 'b', 'l', 'o'), 1), ACCEPT
#define ACCEPT_BLOCK_FROM(offset)                                                                       \
  ACCEPT_BLOCK_AT(offset), ACCEPT_BLOCK_AT((offset) + 1), ACCEPT_BLOCK_AT((offset) + 2),                \
      ACCEPT_BLOCK_AT((offset) + 3), ACCEPT_BLOCK_AT((offset) + 4), ACCEPT_BLOCK_AT((offset) + 5)

static const struct sock_filter filter[] = {
    LOAD(0),
    UNLESS(WORD('c', 'h', 'a', 'n'), 4),
    /* "change@/devices/virtual/mem/null", which the daemon causes to see whether the way is open (guest-events.ts). */
    LOAD(23),
    UNLESS(WORD('/', 'm', 'e', 'm'), 1),
    ACCEPT,
    REJECT,
    /*
     * Where "/block/" stands in "add@/devices/pci0000:00/0000:00:10.0/0000:01:1f.0/virtio5/block/vda": with one, two and three
     * PCI functions on the way. Ascending: a load behind the end of a message drops it, and no message ends before its own.
     */
    ACCEPT_BLOCK_FROM(44),
    ACCEPT_BLOCK_FROM(57),
    ACCEPT_BLOCK_FROM(70),
    REJECT,
};

static const struct sock_fprog program = {sizeof filter / sizeof filter[0], (struct sock_filter *)filter};
static const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK, .nl_groups = KERNEL_GROUP};

static char message[8192];

static long or_end(long result) {
  if (result < 0) end(1);
  return result;
}

/* The question that is coming in; one that is too long is passed over to its end. */
static char question[16384];
static unsigned long question_bytes;

/*
 * A process of its own looks, with a time limit: what it looks at may not answer, and announcements must not wait for that. It
 * ends by itself, and the kernel forgets it.
 */
static void look_in_process(int port) {
  if (call3(__NR_fork, 0, 0, 0) != 0) return;
  call3(__NR_alarm, LOOK_SECONDS_MAX, 0, 0);
  answer_question(port, question);
  end(0);
}

static void take_questions(int port) {
  static char bytes[4096];
  long got = call3(__NR_read, port, (long)bytes, sizeof bytes);
  for (long n = 0; n < got; n++) {
    if (bytes[n] != '\n') {
      if (question_bytes < sizeof question) question[question_bytes++] = bytes[n];
      continue;
    }
    if (question_bytes < sizeof question) {
      question[question_bytes] = 0;
      look_in_process(port);
    }
    question_bytes = 0;
  }
}

static void forget_children(void) {
  struct {
    unsigned long handler, flags, restorer, mask;
  } ignore = {(unsigned long)SIG_IGN, 0, 0, 0};
  call6(__NR_rt_sigaction, SIGCHLD, (long)&ignore, 0, sizeof ignore.mask, 0, 0);
}

void run(const char *path) {
  int port = or_end(call3(__NR_open, (long)path, O_RDWR | O_NONBLOCK, 0));
  int socket = or_end(call3(__NR_socket, AF_NETLINK, SOCK_RAW, NETLINK_KOBJECT_UEVENT));
  or_end(call6(__NR_setsockopt, socket, SOL_SOCKET, SO_ATTACH_FILTER, (long)&program, sizeof program, 0));
  or_end(call3(__NR_bind, socket, (long)&kernel, sizeof kernel));
  forget_children();
  /* A port that nobody has opened on the host is always ready: it is looked at again after a while only. */
  int host_away = 0;
  for (;;) {
    struct pollfd ready[] = {{socket, POLLIN, 0}, {port, POLLIN, 0}};
    long result = call3(__NR_poll, (long)ready, host_away ? 1 : 2, host_away ? AWAY_MS : -1);
    if (result == -EINTR) continue;
    or_end(result);
    host_away = (ready[1].revents & POLLHUP) != 0;
    if (ready[1].revents & POLLIN) take_questions(port);
    if (!ready[0].revents) continue;
    long got = call3(__NR_read, socket, (long)message, sizeof message);
    /* Some were lost; the host finds out by what does not come. */
    if (got == -ENOBUFS) continue;
    if (got <= 0) end(1);
    call3(__NR_write, port, (long)message, got);
  }
}
