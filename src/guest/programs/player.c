/*
 * player PORT: plays lists of system calls.
 *
 * It is started in a template's guest and waits there in a read from a virtio-serial port. A clone wakes up inside that read: one
 * message gives it all that makes it a machine of its own, where starting a process (guest-exec) would take twenty times as long
 * under emulation. What is in a message is up to the daemon (src/guest/player.ts, src/guest/identity.ts).
 *
 * It says "identity" once it has opened its port, and ends when the host closes it: with 1, as with any failure. Who changes what
 * a message looks like changes the greeting as well: daemon and player may come from different builds.
 */
#include "bare.h"
#include <linux/fcntl.h>

#define MESSAGE_BYTES_MAX 0x4000
#define REPLY_ROOM_BYTES 160
/* A result above this, taken as unsigned, is a negative errno. */
#define ERRNO_BELOW -4096UL

struct call {
  long number;
  long arguments[6];
  /* Where the result goes: an argument of a later call, or last_result. */
  long *result;
};

/* All pointers point into the player's own memory. */
struct message {
  unsigned long bytes;
  /* Down to 0, or to those that were not played because of the one that failed. */
  unsigned long calls_left;
  long last_result;
  /* The reply is so many of the message's first bytes, as they are afterwards. */
  unsigned long reply_bytes;
  /* For what calls give back. */
  char reply_room[REPLY_ROOM_BYTES];
  struct call calls[];
  /* Behind the calls: what they are given. */
};

static union {
  struct message message;
  char bytes[MESSAGE_BYTES_MAX];
} memory;

static void receive(int port) {
  unsigned long have = 0;
  do {
    long got = call3(__NR_read, port, (long)(memory.bytes + have), sizeof memory - have);
    if (got <= 0) end(1);
    have += got;
  } while (have < __builtin_offsetof(struct message, reply_room) || have < memory.message.bytes);
}

static void play(void) {
  for (struct call *next = memory.message.calls; memory.message.calls_left > 0; next += 1) {
    const long *with = next->arguments;
    long result = call6(next->number, with[0], with[1], with[2], with[3], with[4], with[5]);
    memory.message.last_result = result;
    *next->result = result;
    if ((unsigned long)result > ERRNO_BELOW) return;
    memory.message.calls_left -= 1;
  }
}

void run(const char *path) {
  int port = call3(__NR_open, (long)path, O_RDWR, 0);
  if (port < 0) end(1);
  static const char greeting[8] = "identity";
  call3(__NR_write, port, (long)greeting, sizeof greeting);
  for (;;) {
    receive(port);
    play();
    call3(__NR_write, port, (long)&memory, memory.message.reply_bytes);
  }
}
