import { createServer, type Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { paced } from './fake-agent.ts';
import type { FakeVm } from './fake-qemu.ts';

/** What a hostile guest does to its daemon, through a scripted QEMU. */
export const ATTACKS = [
  'single bytes to the agent',
  'no end of a line to the agent',
  'lines to the agent',
  'long answers',
  'tangled answers',
  'events that nobody knows',
  'events',
  'uevents',
] as const;
export type Attack = (typeof ATTACKS)[number];

const BLOCK_BYTES = 64 * 1024;
const ANSWER_BYTES = 32 * 1024 * 1024;
/** As QEMU writes them: it sends one for each write of the guest to a register of ACPI's (hw/acpi/cpu.c). */
const OST =
  '{"timestamp": {"seconds": 1700000000, "microseconds": 123456}, "event": "ACPI_DEVICE_OST", ' +
  '"data": {"info": {"device": "d1", "source": 1, "status": 0, "slot": "0", "slot-type": "DIMM"}}}\r\n';
const VSERPORT =
  '{"timestamp": {"seconds": 1700000000, "microseconds": 123456}, "event": "VSERPORT_CHANGE", ' +
  '"data": {"open": true, "id": "other"}}\r\n';
const UEVENT = 'add@/devices/x\0ACTION=add\0DEVPATH=/devices/x\0SUBSYSTEM=block\0SEQNUM=1\0';

/** Attacks as fast as it is let, until it is disposed of. */
export class HostileGuest implements AsyncDisposable {
  readonly #end = new AbortController();
  readonly #work: Promise<void>;

  constructor(vm: FakeVm, attack: Attack) {
    this.#work = run(vm, attack, this.#end.signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end.abort();
    await this.#work;
  }
}

async function run(vm: FakeVm, attack: Attack, signal: AbortSignal): Promise<void> {
  const { agent, qmp } = vm;
  switch (attack) {
    case 'single bytes to the agent':
      await again(signal, () => agent.sendPaced('x'));
      return;
    case 'no end of a line to the agent':
      await again(signal, () => agent.sendPaced(Buffer.alloc(BLOCK_BYTES, 'x')));
      return;
    case 'lines to the agent':
      await again(signal, () => agent.sendPaced('{"return": {}}\n'.repeat(1000)));
      return;
    case 'long answers':
    case 'tangled answers': {
      const usual = agent.answer;
      const line = attack === 'long answers' ? `"${'x'.repeat(ANSWER_BYTES)}"` : '['.repeat(ANSWER_BYTES);
      agent.answer = ({ send }) => {
        send(`{"return": ${line}}\n`);
        return {};
      };
      await ended(signal);
      agent.answer = usual;
      return;
    }
    case 'events that nobody knows':
      await again(signal, () => qmp.sendPaced(OST.repeat(100)));
      return;
    case 'events':
      await again(signal, () => qmp.sendPaced(VSERPORT.repeat(100)));
      return;
    case 'uevents':
      await announce(join(dirname(qmp.path), 'uevents.sock'), signal);
  }
}

async function again(signal: AbortSignal, send: () => Promise<boolean>): Promise<void> {
  const end = ended(signal).then(() => true);
  while (!signal.aborted) {
    const isTaken = await Promise.race([send(), end]);
    if (!isTaken) await sleep(20);
  }
}

async function ended(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  signal.addEventListener('abort', () => resolve(), { once: true });
  await promise;
}

/** The port of the announcements, which the scripted QEMU has not. */
async function announce(path: string, signal: AbortSignal): Promise<void> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    void again(signal, () => paced(socket, UEVENT.repeat(100)));
  });
  server.listen(path);
  await ended(signal);
  for (const socket of sockets) socket.destroy();
  const { promise, resolve } = Promise.withResolvers<void>();
  server.close(() => resolve());
  await promise;
}
