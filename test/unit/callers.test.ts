import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rename, rm, rmdir, stat } from 'node:fs/promises';
import { constants, type ServerHttp2Stream } from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ACCESS } from '../../src/api/access.ts';
import { ShimError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/log.ts';
import { AuditLog, type AuditEntry, type AuditOptions } from '../../src/callers/audit.ts';
import { Denials } from '../../src/callers/denials.ts';
import { Gate } from '../../src/callers/gate.ts';
import { CONTAINERD, type Identity } from '../../src/callers/identity.ts';
import { Policy } from '../../src/callers/policy.ts';
import { Quotas } from '../../src/callers/quotas.ts';
import { CONTAINERD_ACCESS } from '../../src/containerd/wire/access.ts';
import { loadContainerdApi } from '../../src/containerd/wire/schema.ts';
import { loadApi } from '../../src/grpc/schema.ts';
import { Unfinished } from '../../src/grpc/unfinished.ts';
import { shimFailure } from '../support/agent-pair.ts';
import { until } from '../support/until.ts';

const { v1 } = loadApi().qshim;
const { services, task } = loadContainerdApi().containerd;
/** The services of each door, by the names that handlers have for them. */
const DOORS = [
  [
    ACCESS,
    {
      ...{ Sandboxes: v1.Sandboxes, Volumes: v1.Volumes, Operations: v1.Operations },
      ...{ Stats: v1.Stats, Budgets: v1.Budgets, Events: v1.Events },
    },
  ],
  [CONTAINERD_ACCESS, { Controller: services.sandbox.v1.Controller, Task: task.v3.Task }],
] as const;

describe('the tables of what RPCs need', () => {
  for (const [table, served] of DOORS) {
    it(`has every method of ${Object.keys(served).join(', ')}, and nothing else`, () => {
      const methods = Object.entries(served).flatMap(([name, { service }]) =>
        Object.keys(service as object).map((method) => `${name}.${method}`),
      );
      assert.deepEqual(Object.keys(table).sort(), methods.sort());
    });
  }

  it('what only looks needs read, and is not taken down; what changes something is', () => {
    for (const [rpc, { role, audited }] of Object.entries(ACCESS)) {
      const looks = /\.(Get|List|Watch|Console)$/.test(rpc);
      assert.equal(role === 'read', looks, rpc);
      assert.equal(audited, !looks && !/\.(Plan|ListKeySlots|ListStaleCopies)$/.test(rpc), rpc);
    }
  });
});

describe('quotas', () => {
  const limits = (connections: number, calls: number, streams: number) => ({ connections, calls, streams });

  it('a caller that has used up its part leaves the others theirs', () => {
    const quotas = new Quotas(limits(9, 3, 9), limits(9, 2, 1));
    using _one = quotas.enter('a', 'calls');
    const two = quotas.enter('a', 'calls');
    const full = shimFailure('RESOURCE_EXHAUSTED', 'TOO_MANY_CALLS');
    assert.throws(() => quotas.enter('a', 'calls'), full);
    using _stream = quotas.enter('a', 'streams');
    assert.throws(() => quotas.enter('a', 'streams'), full);
    using _other = quotas.enter('b', 'calls');
    assert.throws(() => quotas.enter('c', 'calls'), full, 'all three are in use');
    two[Symbol.dispose]();
    using _third = quotas.enter('c', 'calls');
  });

  it('says whose limit it was, and which option it is', () => {
    const quotas = new Quotas(limits(1, 1, 1), limits(2, 1, 1));
    using _held = quotas.enter('a', 'calls');
    using _connection = quotas.enter('a', 'connections');
    for (const [kind, option] of [
      ['calls', 'caller_calls_max'],
      ['connections', 'connections_max'],
    ] as const) {
      assert.throws(
        () => quotas.enter('a', kind),
        (error: unknown) => error instanceof ShimError && error.metadata['option'] === option,
      );
    }
  });
});

describe('the audit log', () => {
  const entry: AuditEntry = {
    ...{ caller: 'uid 1', pid: 2, method: 'Volumes.Attach', sandboxId: 's', volumeIds: ['v'], durationMs: 3 },
    ...{ keys: ['file:/etc/keys/a'], sources: ['/srv/a'], rules: ['a'], outcome: 'OK', reason: '' },
  };
  const withLog = async (
    options: Partial<AuditOptions>,
    act: (log: AuditLog, path: string) => Promise<void>,
  ): Promise<void> => {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-audit-'));
    const path = join(directory, 'audit.jsonl');
    const log = await AuditLog.open({ path, bytesMax: 1e6, required: false, log: silentLogger(), ...options });
    try {
      await act(log, path);
    } finally {
      await log[Symbol.asyncDispose]();
      await rm(directory, { recursive: true });
    }
  };
  const lines = async (path: string): Promise<readonly Record<string, unknown>[]> =>
    (await readFile(path, 'utf8'))
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  const written = (path: string, count: number) =>
    until(`${count} lines`, async () => ((await lines(path)).length === count ? await lines(path) : undefined));

  it('has a JSON line for each entry, in order, for its user only', async () => {
    await withLog({}, async (log, path) => {
      for (let index = 0; index < 200; index += 1) log.write({ ...entry, durationMs: index });
      const found = await written(path, 200);
      assert.deepEqual(
        found.map(({ durationMs }) => durationMs),
        Array.from({ length: 200 }, (_, index) => index),
      );
      const { time, ...rest } = found[3] ?? {};
      assert.deepEqual(rest, { ...entry, durationMs: 3 });
      assert.match(String(time), /^\d{4}-\d\d-\d\dT/);
      assert.equal((await stat(path)).mode & 0o777, 0o600);
    });
  });

  it('is bounded: the file becomes the last one', async () => {
    await withLog({ bytesMax: 4096 }, async (log, path) => {
      for (let index = 0; index < 100; index += 1) {
        log.write({ ...entry, durationMs: index });
        await log[Symbol.asyncDispose]();
      }
      for (const file of [path, `${path}.1`]) assert.ok((await stat(file)).size <= 4096, file);
      assert.equal((await lines(path)).at(-1)?.['durationMs'], 99);
    });
  });

  it('a caller that is denied without an end does not push out what others did', async () => {
    await withLog({ bytesMax: 40_000 }, async (log, path) => {
      log.write({ ...entry, method: 'Volumes.Attach' });
      for (let index = 0; index < 1000; index += 1) log.writeDenial({ ...entry, caller: 'uid 7' });
      log.writeDenial({ ...entry, caller: 'uid 8' });
      await log[Symbol.asyncDispose]();
      const found = await lines(path);
      assert.equal(found[0]?.['method'], 'Volumes.Attach');
      assert.equal(found.filter(({ caller }) => caller === 'uid 8').length, 1);
      const told = found.filter(({ deniedWithoutLine }) => deniedWithoutLine !== undefined);
      const whole = found.filter(({ caller, method }) => caller === 'uid 7' && method !== undefined);
      assert.ok(whole.length >= 50 && whole.length < 100, `${whole.length} lines`);
      const counted = told.reduce((sum, line) => sum + Number(line['deniedWithoutLine']), 0);
      assert.equal(whole.length + counted, 1000);
      assert.deepEqual(new Set(told.map(({ caller }) => caller)), new Set(['uid 7']));
    });
  });

  it('of more callers than are told apart, nobody is charged with what others did', () => {
    const denials = new Denials(() => 0);
    for (let caller = 0; caller < 1100; caller += 1) {
      for (let turn = 0; turn < 60; turn += 1) denials.count(`cn ${caller}`);
    }
    const told = denials.settle();
    assert.equal(told.find(({ caller }) => caller === 'cn 7')?.leftOut, 10);
    assert.equal(
      told.find(({ caller }) => caller === 'cn 1050'),
      undefined,
    );
    assert.equal(told.find(({ caller }) => caller === 'others')?.leftOut, 76 * 60 - 50);
  });

  it('that cannot be written keeps its lines, and says so; where it is required, nothing begins', async () => {
    for (const required of [false, true]) {
      await withLog({ required }, async (log, path) => {
        // For root, too: a directory in its place.
        await rename(path, `${path}.old`);
        await mkdir(path);
        await log.ready();
        log.write(entry);
        await until('the problem', () => log.problem);
        if (required) await assert.rejects(log.ready(), shimFailure('UNAVAILABLE', 'AUDIT_NOT_WRITTEN'));
        else await log.ready();
        for (let index = 0; index < 3000; index += 1) log.write({ ...entry, durationMs: index });
        await rmdir(path);
        log.write(entry);
        const { kept, dropped } = await until('all of them, written or counted', async () => {
          const now = await lines(path).catch(() => []);
          const dropped = now.reduce((sum, line) => sum + Number(line['dropped'] ?? 0), 0);
          const kept = now.filter(({ method }) => method !== undefined).length;
          return kept + dropped === 3002 ? { kept, dropped } : undefined;
        });
        assert.ok(kept >= 1024 && dropped > 1000, `${kept} kept`);
        await log.ready();
        assert.equal(log.problem, undefined);
      });
    }
  });
});

describe('the gate', () => {
  const DEPLOY: Identity = { kind: 'user', uid: 1000, groups: [1000], pid: 77 };
  const POLICY = `[[rule]]
name = "a"
users = [1000]
roles = ["volume"]
sandboxes = { tenant = "a" }
roots = ["/srv/a"]
keys = ["file:/k/a"]`;
  const asked = (rpc: string, target: object) => {
    const access = ACCESS[rpc];
    assert.ok(access);
    return { rpc, access, identity: DEPLOY, target };
  };
  const open = async (): Promise<{
    gate: Gate;
    entries: AuditEntry[];
    holder: { current: Policy };
    /** What happens while the audit log is looked at. */
    meanwhile: (act: () => void) => void;
  }> => {
    const noNames = { user: () => Promise.reject(new Error()), group: () => Promise.reject(new Error()) };
    const holder = { current: await Policy.parse(POLICY, noNames) };
    const entries: AuditEntry[] = [];
    // Only what the gate asks of it.
    const write = (line: AuditEntry): unknown => entries.push(line);
    let whileLooking = (): void => undefined;
    const ready = (): Promise<void> => {
      whileLooking();
      return Promise.resolve();
    };
    const audit = { ready, write, writeDenial: write };
    const labels: Record<string, Record<string, string>> = { mine: { tenant: 'a' }, yours: { tenant: 'b' } };
    const meanwhile = (act: () => void): void => {
      whileLooking = act;
    };
    return { gate: new Gate({ policy: holder, audit, labelsOf: (id) => labels[id] }), entries, holder, meanwhile };
  };

  it('lets pass what the policy grants, and takes down how it ended', async () => {
    const { gate, entries } = await open();
    const target = { sandboxId: 'mine', volumeIds: ['v'], sources: ['/srv/a/x'], keys: ['file:/k/a'] };
    const permit = await gate.admit(asked('Volumes.Attach', target));
    assert.deepEqual(permit.grant.roots, ['/srv/a']);
    assert.deepEqual(
      [permit.sees({ tenant: 'a' }), permit.sees({ tenant: 'b' }), permit.sees({})],
      [true, false, false],
    );
    permit.ended(undefined);
    permit.ended(new ShimError('NOT_FOUND', 'x', { reason: 'SANDBOX_NOT_FOUND' }));
    permit.ended(new Error('oh'));
    assert.deepEqual(
      entries.map(({ outcome, reason }) => [outcome, reason]),
      [
        ['OK', ''],
        ['NOT_FOUND', 'SANDBOX_NOT_FOUND'],
        ['INTERNAL', 'UNEXPECTED'],
      ],
    );
    const { durationMs, outcome: _outcome, reason: _reason, ...rest } = entries[0] ?? assert.fail();
    assert.ok(durationMs >= 0);
    const whose = { caller: 'uid 1000', pid: 77, method: 'Volumes.Attach', rules: ['a'] };
    assert.deepEqual(rest, { ...whose, ...target });
  });

  it('denies the rest, and takes every denial down', async () => {
    const { gate, entries } = await open();
    for (const [rpc, target, reason] of [
      ['Volumes.Attach', { sandboxId: 'yours' }, 'SANDBOX_NOT_GRANTED'],
      ['Volumes.Attach', { sandboxId: 'mine', sources: ['/srv/a/x', '/srv/b/x'] }, 'ROOT_NOT_GRANTED'],
      ['Volumes.Attach', { sandboxId: 'mine', keys: ['file:/k/b'] }, 'KEY_NOT_GRANTED'],
      ['Sandboxes.Get', { sandboxId: 'yours' }, 'SANDBOX_NOT_GRANTED'],
      ['Sandboxes.Exec', { sandboxId: 'mine' }, 'ROLE_MISSING'],
      ['Sandboxes.Create', { sandboxId: 'new', labels: { tenant: 'a' } }, 'ROLE_MISSING'],
    ] as const) {
      await assert.rejects(gate.admit(asked(rpc, target)), shimFailure('PERMISSION_DENIED', reason), rpc);
      assert.deepEqual([entries.at(-1)?.reason, entries.at(-1)?.rules], [reason, ['a']]);
    }
    await gate.admit({ ...asked('Volumes.Attach', { sandboxId: 'yours' }), identity: CONTAINERD });
  });

  it('a policy that comes while the log is looked at denies, and that is taken down too', async () => {
    const { gate, entries, holder, meanwhile } = await open();
    const nobody = await Policy.parse(POLICY.replace('1000', '1001'), {
      user: (name) => Promise.resolve(Number(name)),
      group: (name) => Promise.resolve(Number(name)),
    });
    meanwhile(() => {
      holder.current = nobody;
    });
    const attach = gate.admit(asked('Volumes.Attach', { sandboxId: 'mine' }));
    await assert.rejects(attach, shimFailure('PERMISSION_DENIED', 'CALLER_NOT_NAMED'));
    assert.deepEqual(
      entries.map(({ method, reason }) => [method, reason]),
      [['Volumes.Attach', 'CALLER_NOT_NAMED']],
    );
  });

  it('what a caller may see is what the policy of now says', async () => {
    const { gate, holder } = await open();
    const permit = await gate.admit(asked('Sandboxes.Get', { sandboxId: 'mine' }));
    holder.current = Policy.open;
    assert.ok(permit.sees({ tenant: 'b' }));
  });
});

describe('unfinished messages', () => {
  /** As much of a stream as is looked at. */
  class FakeStream extends PassThrough {
    code: number | undefined;
    close(code: number): void {
      this.code = code;
      this.destroy();
    }
  }
  const limits = { messageMs: 60_000, bytesMax: 100_000, streamsMax: 4 };
  const open = (unfinished: Unfinished, caller = 'a'): FakeStream => {
    const stream = new FakeStream({ highWaterMark: 1e9 });
    unfinished.watch(stream as unknown as ServerHttp2Stream, caller);
    stream.resume();
    return stream;
  };
  /** A message of so many bytes, of which so many come. A buffer of its own, as a read from a socket is. */
  const message = (length: number, come = length): Buffer => {
    const bytes = Buffer.from(new ArrayBuffer(5 + come));
    bytes.writeUInt32BE(length, 1);
    return bytes;
  };
  const settle = (): Promise<void> => sleep(20);

  it('are counted by the buffers that they hold, until they are whole or their call ends', async () => {
    using unfinished = new Unfinished(limits);
    const stream = open(unfinished);
    stream.write(message(30_000, 10_000));
    await settle();
    assert.ok(unfinished.bytes > 10_000 && unfinished.bytes < 11_000, String(unfinished.bytes));
    stream.write(Buffer.from(new ArrayBuffer(20_000)));
    await settle();
    assert.deepEqual([unfinished.bytes], [0]);
    stream.write(message(30_000, 10));
    await settle();
    assert.notEqual(unfinished.bytes, 0);
    stream.destroy();
    await settle();
    assert.equal(unfinished.bytes, 0);
  });

  it('pieces of one byte cost what they hold: the call that exceeds is ended', async () => {
    using unfinished = new Unfinished(limits);
    const stream = open(unfinished);
    stream.write(message(1000, 0));
    for (let index = 0; index < 300; index += 1) {
      const read = Buffer.from(new ArrayBuffer(1024));
      stream.write(read.subarray(0, 1));
      await new Promise(setImmediate);
    }
    assert.equal(stream.code, constants.NGHTTP2_ENHANCE_YOUR_CALM);
    assert.equal(unfinished.bytes, 0);
  });

  it('one caller may have half of the memory, all together the whole', async () => {
    using unfinished = new Unfinished(limits);
    const [first, second] = [open(unfinished), open(unfinished)];
    first.write(message(80_000, 40_000));
    await settle();
    second.write(message(80_000, 40_000));
    await settle();
    assert.deepEqual([first.code, second.code], [undefined, constants.NGHTTP2_ENHANCE_YOUR_CALM]);
    const other = open(unfinished, 'b');
    other.write(message(80_000, 40_000));
    await settle();
    assert.equal(other.code, undefined);
    const third = open(unfinished, 'c');
    third.write(message(80_000, 40_000));
    await settle();
    assert.equal(third.code, constants.NGHTTP2_ENHANCE_YOUR_CALM);
  });

  it('have a time limit, from the begin of the call or of the message; whole ones have none', async () => {
    using unfinished = new Unfinished({ ...limits, messageMs: 60 });
    const [silent, half, whole] = [open(unfinished), open(unfinished), open(unfinished)];
    half.write(message(100, 10));
    whole.write(message(10));
    await until('both are ended', () => (silent.code !== undefined && half.code !== undefined ? true : undefined));
    await sleep(200);
    assert.equal(whole.code, undefined);
    whole.write(message(100, 1));
    await until('that one, too', () => whole.code);
  });

  it('many in one piece are too many at once; and so are streams', async () => {
    using unfinished = new Unfinished(limits);
    const stream = open(unfinished);
    stream.write(Buffer.concat(Array.from({ length: 256 }, () => message(0))));
    await settle();
    assert.equal(stream.code, undefined);
    stream.write(Buffer.concat(Array.from({ length: 257 }, () => message(0))));
    await until('the end', () => stream.code);
    await settle();
    const streams = Array.from({ length: 5 }, () => open(unfinished));
    await until('the fifth is ended', () => streams[4]?.code);
    assert.deepEqual(
      streams.slice(0, 4).map(({ code }) => code),
      [undefined, undefined, undefined, undefined],
    );
  });
});
