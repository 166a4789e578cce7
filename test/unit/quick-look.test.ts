import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { QuickLook } from '../../src/guest/quick-look.ts';
import type { Uevent } from '../../src/guest/uevents.ts';
import { UeventSplitter } from '../../src/guest/uevents.ts';

const A = '0000:01:1f.0';
const B = '0000:01:1e.0';

/** A port whose guest answers each question as it is told. */
class Port {
  open = true;
  readonly asked: string[] = [];
  readonly looks = new QuickLook();
  answer: (id: string) => readonly string[] = () => [];
  readonly #splitter = new UeventSplitter();

  send(text: string): void {
    this.asked.push(text);
    const [, id = ''] = text.split(' ');
    const strings = this.answer(id);
    setImmediate(() => {
      for (const event of this.#splitter.push(Buffer.from(strings.map((each) => `${each}\0`).join(''))))
        this.take(event);
    });
  }

  take(event: Uevent): void {
    this.looks.take(event);
  }

  of(...addresses: readonly string[]): Promise<readonly string[]> {
    return this.looks.of(this, addresses, new AbortController().signal).then((unused) => [...unused]);
  }
}

describe('a quick look', () => {
  it('asks in one line, and takes the answer in parts', async () => {
    const port = new Port();
    port.answer = (id) => [
      ...[`answer@/${id}`, `000=${A}`, 'SEQNUM=0'],
      ...['add@/devices/virtual/mem/null', 'ACTION=add', 'SEQNUM=7'],
      ...[`answer@/${id}`, `064=${B}`, 'looked=1', 'SEQNUM=0'],
    ];
    assert.deepEqual(await port.of(A, B), [A, B]);
    assert.match(port.asked[0] ?? '', /^unused [0-9a-f-]{36} 0000:01:1f\.0 0000:01:1e\.0\n$/);
  });

  it('that was cut short, or is the answer to another question, says nothing', async () => {
    const port = new Port();
    port.answer = (id) => [`answer@/${id}`, `000=${A}`, 'SEQNUM=0', `answer@/${A}`, `000=${A}`, 'looked=1', 'SEQNUM=0'];
    assert.deepEqual(await port.of(A), []);
  });

  it('a guest that does not answer is left alone for a while, and asked again after a reset', async () => {
    const port = new Port();
    assert.deepEqual(await port.of(A), []);
    port.answer = (id) => [`answer@/${id}`, `000=${A}`, 'looked=1', 'SEQNUM=0'];
    assert.deepEqual(await port.of(A), []);
    assert.equal(port.asked.length, 1);
    port.looks.reset();
    assert.deepEqual(await port.of(A), [A]);
    port.open = false;
    assert.deepEqual(await port.of(A), []);
    assert.equal(port.asked.length, 2);
  });

  it('of many disks takes several questions', async () => {
    const port = new Port();
    port.answer = (id) => [`answer@/${id}`, 'looked=1', 'SEQNUM=0'];
    await port.of(...Array.from({ length: 450 }, (_, n) => `0000:01:${n.toString(16)}.0`));
    assert.deepEqual(
      port.asked.map((text) => text.trim().split(' ').length - 2),
      [200, 200, 50],
    );
    assert.ok(
      port.asked.every((text) => text.length < 16_384),
      'as long as the program takes',
    );
  });

  it('ends with the VM', async () => {
    const port = new Port();
    const gone = new AbortController();
    const asked = port.looks.of(port, [A], gone.signal);
    gone.abort();
    assert.deepEqual([...(await asked)], []);
    port.answer = (id) => [`answer@/${id}`, `000=${A}`, 'looked=1', 'SEQNUM=0'];
    assert.deepEqual(await port.of(A), [A], 'that says nothing of the guest');
  });
});
