import { BUFFER_ADDRESS, CODE_ADDRESS, executable } from './elf.ts';

/**
 * A program of 740 bytes for x86-64 Linux guests that passes on what the kernel announces of virtio disks to a virtio-serial
 * port, its only argument. Any writer of whole uevents will do in its place (docs/guest.md has one made of socat); this one costs less:
 * - a filter in the kernel lets through disks only, where a disk makes ten announcements: each that is passed on is a trip
 *   through QEMU's main loop, which is busy just then;
 * - it never waits for the host: on a port that is opened without O_NONBLOCK Linux spins until QEMU has taken each write, with a
 *   lock held. What nobody on the host takes is thrown away, and so is never old when somebody listens again.
 */

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const NETLINK_KOBJECT_UEVENT = 15;
const KERNEL_GROUP = 1;
const SOL_SOCKET = 1;
const SO_ATTACH_FILTER = 26;
const O_WRONLY_NONBLOCK = 0x801;
const ENOBUFS = 105;
const BUFFER_BYTES = 8192;
const SYSCALL = { read: 0, write: 1, open: 2, socket: 41, bind: 49, setsockopt: 54, exit: 60 } as const;

/** Classic BPF (linux/filter.h). */
const LOAD_WORD = 0x20;
const JUMP_IF_EQUAL = 0x15;
const RETURN = 0x06;
const WHOLE = 0x4_0000;

/**
 * Where "/block/" stands in "add@/devices/pci0000:00/0000:00:10.0/0000:01:1f.0/virtio5/block/vda", or in the same after
 * "remove@": for one, two and three PCI functions on the way, and one to three digits. Ascending: a load behind the end of a
 * message drops it, and no message ends before its own.
 */
const BLOCK_OFFSETS = [1, 2, 3].flatMap((functions) => [31, 32, 33, 34, 35, 36].map((digit) => functions * 13 + digit));
/** "/mem" in "change@/devices/virtual/mem/null", which the daemon causes to see whether the way is open (guest-events.ts). */
const MARK_OFFSET = 23;

function word(text: string): number {
  return Buffer.from(text).readUInt32BE();
}

/** struct sock_filter[] */
function filter(): Buffer {
  const checks = BLOCK_OFFSETS.length * 2;
  const accept = 4 + checks + 1;
  const jump = (from: number, value: number, ifTo: number, elseTo: number): number[] => [
    JUMP_IF_EQUAL,
    ifTo - from - 1,
    elseTo - from - 1,
    value,
  ];
  const reject = accept - 1;
  const code = [
    [LOAD_WORD, 0, 0, 0],
    jump(1, word('chan'), 2, 4),
    [LOAD_WORD, 0, 0, MARK_OFFSET],
    jump(3, word('/mem'), accept, reject),
    ...BLOCK_OFFSETS.flatMap((offset, index) => {
      const at = 5 + index * 2;
      return [[LOAD_WORD, 0, 0, offset], jump(at, word('/blo'), accept, at + 1)];
    }),
    [RETURN, 0, 0, 0],
    [RETURN, 0, 0, WHOLE],
  ];
  return Buffer.concat(
    code.map(([operation = 0, ifTrue = 0, ifFalse = 0, operand = 0]) => {
      const instruction = Buffer.alloc(8);
      instruction.writeUInt16LE(operation, 0);
      instruction.writeUInt8(ifTrue, 2);
      instruction.writeUInt8(ifFalse, 3);
      instruction.writeUInt32LE(operand, 4);
      return instruction;
    }),
  );
}

type Label = 'again' | 'end';
type Part = readonly number[] | { readonly label: Label } | { readonly jump: readonly number[]; readonly to: Label };

const le32 = (value: number): number[] => [
  value & 0xff,
  (value >> 8) & 0xff,
  (value >> 16) & 0xff,
  (value >> 24) & 0xff,
];
/** mov eax, number; syscall */
const call = (number: number): number[] => [0xb8, ...le32(number), 0x0f, 0x05];
const ediIs = (value: number): number[] => [0xbf, ...le32(value)];
const esiIs = (value: number): number[] => [0xbe, ...le32(value)];
const edxIs = (value: number): number[] => [0xba, ...le32(value)];
/** test eax, eax; js end */
const endIfFailed: readonly Part[] = [[0x85, 0xc0], { jump: [0x0f, 0x88], to: 'end' }];

function program(programFilter: number, address: number): readonly Part[] {
  return [
    [0x48, 0x8b, 0x7c, 0x24, 0x10], // mov rdi, [rsp + 16]: argv[1]
    [...esiIs(O_WRONLY_NONBLOCK), ...call(SYSCALL.open)],
    ...endIfFailed,
    [0x41, 0x89, 0xc4], // mov r12d, eax: the port
    [...ediIs(AF_NETLINK), ...esiIs(SOCK_RAW), ...edxIs(NETLINK_KOBJECT_UEVENT), ...call(SYSCALL.socket)],
    ...endIfFailed,
    [0x89, 0xc3, 0x89, 0xc7], // mov ebx, eax: the socket; mov edi, eax
    [...esiIs(SOL_SOCKET), ...edxIs(SO_ATTACH_FILTER)],
    [0x41, 0xba, ...le32(programFilter), 0x41, 0xb8, ...le32(16)], // mov r10d, filter; mov r8d, 16
    call(SYSCALL.setsockopt),
    ...endIfFailed,
    [0x89, 0xdf], // mov edi, ebx
    [...esiIs(address), ...edxIs(12), ...call(SYSCALL.bind)],
    ...endIfFailed,
    { label: 'again' },
    [0x89, 0xdf], // mov edi, ebx
    [...esiIs(BUFFER_ADDRESS), ...edxIs(BUFFER_BYTES), ...call(SYSCALL.read)],
    [0x83, 0xf8, 256 - ENOBUFS], // cmp eax, -ENOBUFS: some were lost; the host finds out by what does not come
    { jump: [0x0f, 0x84], to: 'again' },
    [0x85, 0xc0],
    { jump: [0x0f, 0x8e], to: 'end' }, // jle end
    [0x89, 0xc2, 0x44, 0x89, 0xe7], // mov edx, eax; mov edi, r12d
    [...esiIs(BUFFER_ADDRESS), ...call(SYSCALL.write)],
    { jump: [0xe9], to: 'again' },
    { label: 'end' },
    [...ediIs(1), ...call(SYSCALL.exit)],
  ];
}

function assemble(parts: readonly Part[]): Buffer {
  const sizeOf = (part: Part): number => ('label' in part ? 0 : 'jump' in part ? part.jump.length + 4 : part.length);
  const labels = new Map<Label, number>();
  let at = 0;
  for (const part of parts) {
    if ('label' in part) labels.set(part.label, at);
    at += sizeOf(part);
  }
  at = 0;
  const bytes = parts.flatMap((part) => {
    at += sizeOf(part);
    if ('label' in part) return [];
    return 'jump' in part ? [...part.jump, ...le32((labels.get(part.to) ?? 0) - at)] : part;
  });
  return Buffer.from(bytes);
}

/** The forwarder as an ELF executable. It ends with 1 when it cannot begin. */
export function forwarderExecutable(): Buffer {
  const instructions = filter();
  const codeBytes = assemble(program(0, 0)).length;
  const address = CODE_ADDRESS + codeBytes;
  const programAt = address + 16;
  const netlinkAddress = Buffer.alloc(16);
  netlinkAddress.writeUInt16LE(AF_NETLINK, 0);
  netlinkAddress.writeUInt32LE(KERNEL_GROUP, 8);
  const programHead = Buffer.alloc(16); // struct sock_fprog
  programHead.writeUInt16LE(instructions.length / 8, 0);
  programHead.writeBigUInt64LE(BigInt(programAt + 16), 8);
  const code = assemble(program(programAt, address));
  return executable(Buffer.concat([code, netlinkAddress, programHead, instructions]), BUFFER_BYTES);
}
