import assert from 'node:assert/strict';
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { silentLogger } from '../../src/base/log.ts';
import { ExitListener, type AnnouncedExit } from '../../src/guest/containers/exits.ts';
import type { Port } from '../../src/guest/containers/port.ts';
import { PortReader, PortWriter } from '../../src/guest/containers/streams.ts';
import { SerialPorts, type PortHost } from '../../src/sandbox/ports.ts';
import { until } from '../support/until.ts';

const TOKEN = 'cd'.repeat(16);

interface Backend {
  readonly type: 'pipe' | 'file';
  readonly data: { readonly device?: string; readonly in?: string };
}

/**
 * QEMU as far as chardevs go: it opens the FIFOs behind them, as the real one does, and closes them with the chardev.
 */
class FakeChardevs implements Disposable {
  readonly #fds = new Map<string, readonly number[]>();
  readonly #devices = new Set<string>();

  /** The descriptor with which QEMU writes what comes out of a port, or reads what goes in. */
  fd(chardev: string, index: 0 | 1): number {
    const fd = this.#fds.get(chardev)?.[index];
    assert.ok(fd !== undefined, `there is no chardev ${chardev}`);
    return fd;
  }

  has(chardev: string): boolean {
    return this.#fds.has(chardev);
  }

  run(command: string, args: { readonly id?: string; readonly backend?: Backend } = {}): Promise<unknown> {
    const { id = '', backend } = args;
    if (command === 'device_add') this.#devices.add(id);
    if (command === 'device_del') this.#devices.delete(id);
    if (command === 'qom-list') return Promise.resolve([...this.#devices].map((name) => ({ name })));
    if (command === 'query-chardev') return Promise.resolve([...this.#fds.keys()].map((label) => ({ label })));
    if (command === 'chardev-add' && backend !== undefined) this.#fds.set(id, open(backend));
    if (command === 'chardev-remove') {
      for (const fd of this.#fds.get(id) ?? []) closeSync(fd);
      this.#fds.delete(id);
    }
    return Promise.resolve({});
  }

  listen(): { next(): Promise<void> } & Disposable {
    return { next: () => Promise.resolve(), [Symbol.dispose]: () => undefined };
  }

  [Symbol.dispose](): void {
    for (const fd of [...this.#fds.values()].flat()) closeSync(fd);
  }
}

/** chardev `pipe` takes PATH.in and PATH.out, or PATH alone where those are not; `file` only reads. */
function open({ type, data }: Backend): readonly number[] {
  if (type === 'file') return [openSync(data.in ?? '', constants.O_RDONLY | constants.O_NONBLOCK)];
  const both = constants.O_RDWR | constants.O_NONBLOCK;
  const device = data.device ?? '';
  const paths = device.endsWith('.stdin') ? [device] : [`${device}.in`, `${device}.out`];
  return paths.map((path) => openSync(path, both));
}

async function rig(cleanup: AsyncDisposableStack): Promise<{ ports: SerialPorts; qemu: FakeChardevs }> {
  const directory = await mkdtemp(join(tmpdir(), 'qshim-ports-'));
  cleanup.defer(() => rm(directory, { recursive: true }));
  const qemu = cleanup.use(new FakeChardevs());
  const host = {
    ...{ log: silentLogger(), gone: new AbortController().signal, files: { directory }, qemuUid: 0 },
    config: { guest_ports_max: 16, unplug_retry_ms: 1, unplug_retry_max_ms: 1 },
    ...{ commit: () => Promise.resolve(), commitSoon: () => undefined },
    link: { ready: () => Promise.resolve(qemu) },
  } as unknown as PortHost;
  return { ports: new SerialPorts(host), qemu };
}

async function plugged(ports: SerialPorts, kind: Port['kind']): Promise<Port> {
  const [port] = await ports.add([kind]);
  assert.ok(port);
  return port;
}

describe('a port that the guest has missed is plugged again', () => {
  it('whoever reads it already goes on reading: output, and the ends of processes', async () => {
    await using cleanup = new AsyncDisposableStack();
    const { ports, qemu } = await rig(cleanup);
    const [output, events] = [await plugged(ports, 'output'), await plugged(ports, 'output')];
    const reader = cleanup.adopt(new PortReader(output.outputPath ?? '', TOKEN), (stream) => void stream.destroy());
    let text = '';
    let ended = false;
    reader.on('data', (bytes: Buffer) => (text += bytes.toString())).on('end', () => (ended = true));
    const heard: AnnouncedExit[] = [];
    cleanup.use(new ExitListener(events.outputPath ?? '', (exit) => heard.push(exit)));
    const say = (port: Port, words: string): void => void writeSync(qemu.fd(`port-${port.nr}-chr`, 1), words);
    say(output, 'before ');
    say(events, 'exit a t 1 1 0\n');
    await until('both are read', () => Promise.resolve(text !== '' && heard.length === 1));
    for (const { nr } of [output, events]) await ports.renew(nr);
    say(output, `after${TOKEN}`);
    say(events, 'exit b t 2 1 0\n');
    await until('the end is heard of', () => Promise.resolve(ended && heard.length === 2));
    assert.equal(text, 'before after');
    assert.deepEqual(
      heard.map(({ key }) => key),
      ['a', 'b'],
    );
  });

  it('what was written to it before is still there, then the end that was asked for', async () => {
    await using cleanup = new AsyncDisposableStack();
    const { ports, qemu } = await rig(cleanup);
    const port = await plugged(ports, 'input');
    const writer = new PortWriter(port.inputPath ?? '', () => ports.endInput(port.nr));
    cleanup.defer(() => void writer.destroy());
    writer.write('first ');
    await until('it is in the FIFO', () => Promise.resolve(writer.writableLength === 0));
    await ports.renew(port.nr);
    writer.end('second');
    await until('its end is on record', () => Promise.resolve(!qemu.has(`port-${port.nr}-hold`)));
    await ports.renew(port.nr);
    const fd = qemu.fd(`port-${port.nr}-chr`, 0);
    const bytes = Buffer.alloc(64);
    assert.equal(bytes.subarray(0, readSync(fd, bytes)).toString(), 'first second');
    assert.equal(readSync(fd, bytes), 0, 'the end of file');
  });
});
