/*
 * For programs that need nothing of the guest's: no C library, no loader. x86-64 Linux only. They make system calls, and
 * little else. program.ld says where they lie in memory; scripts/guest/programs.ts builds them.
 */
#include <asm/unistd.h>

/* What the program does with its only argument; NULL when it was given none. Never returns. */
_Noreturn void run(const char *argument);

/* The kernel leaves argc, argv[0] and argv[1] on the stack. */
__asm__(".globl _start\n"
        "_start:\n"
        "\tmov 16(%rsp), %rdi\n"
        "\tcall run\n");

/* Returns what the kernel does: a negative errno for a failure. */
static inline long call6(long number, long a, long b, long c, long d, long e, long f) {
  register long fourth __asm__("r10") = d;
  register long fifth __asm__("r8") = e;
  register long sixth __asm__("r9") = f;
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth), "r"(sixth)
                   : "rcx", "r11", "memory");
  return result;
}

static inline long call3(long number, long a, long b, long c) {
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
  return result;
}

_Noreturn static inline void end(int code) {
  for (;;) call3(__NR_exit, code, 0, 0);
}
