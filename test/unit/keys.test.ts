import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmod, chown, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import { pino } from 'pino';
import { silentLogger } from '../../src/base/log.ts';
import { KeyBindings, type KeyUse } from '../../src/keys/bindings.ts';
import { KEY_BYTES_MAX, KeyMaterial } from '../../src/keys/material.ts';
import { describeReference, type KeyReference } from '../../src/keys/reference.ts';
import { KeySources, type KeySourcesOptions } from '../../src/keys/sources.ts';
import { shimFailure } from '../support/agent-pair.ts';

const KEY = Buffer.from([0, 10, 255, 39, 0x6b, 0x65, 0x79, 10]);
const USE: KeyUse = { kind: 'host_luks', labels: { tenant: 'a' }, uuid: undefined, creates: false };
const isRoot = process.getuid?.() === 0;

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'qshim-keys-'));
});
after(async () => await rm(directory, { recursive: true }));

function sources(changes: Partial<KeySourcesOptions> = {}): KeySources {
  return new KeySources({
    log: silentLogger(),
    directories: [directory],
    environmentNames: [],
    commands: new Map(),
    bindings: new KeyBindings([]),
    timeoutMs: 5000,
    credentialsDirectory: undefined,
    environment: {},
    ...changes,
  });
}

async function file(name: string, bytes: Uint8Array, mode = 0o600): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, bytes, { mode });
  await chmod(path, mode);
  return path;
}

async function bytesOf(from: KeySources, reference: KeyReference): Promise<Buffer> {
  using key = await from.fetch(reference, USE);
  return key.use((bytes) => Buffer.from(bytes));
}

describe('key material', () => {
  it('takes the bytes over, zeroes the original, and is zeroed when disposed of', () => {
    const original = Buffer.from(KEY);
    let lent: Buffer;
    {
      using key = KeyMaterial.take(original);
      assert.equal(
        original.every((byte) => byte === 0),
        true,
      );
      lent = key.use((bytes) => bytes);
      assert.deepEqual(lent, KEY);
      assert.notEqual(lent.buffer.byteLength, Buffer.poolSize, 'not in the pool that small Buffers share');
    }
    assert.equal(
      lent.every((byte) => byte === 0),
      true,
    );
  });

  it('refused material is zeroed as well', () => {
    const long = Buffer.alloc(KEY_BYTES_MAX + 1, 'k');
    assert.throws(() => KeyMaterial.take(long), shimFailure('FAILED_PRECONDITION', 'KEY_TOO_LONG'));
    assert.equal(
      long.every((byte) => byte === 0),
      true,
    );
    assert.throws(() => KeyMaterial.take(Buffer.alloc(0)), shimFailure('FAILED_PRECONDITION', 'KEY_EMPTY'));
  });

  it('shows nothing in text, JSON, inspection and the log', () => {
    using key = KeyMaterial.take(Buffer.from('plain words'));
    const lines: string[] = [];
    pino({ level: 'trace' }, { write: (line: string) => lines.push(line) }).info({ key }, 'a key');
    for (const shown of [
      String(key),
      JSON.stringify({ key }),
      inspect(key, { depth: 9, showHidden: true }),
      ...lines,
    ]) {
      assert.doesNotMatch(shown, /plain|706c61696e|cGxhaW/);
      assert.match(shown, /key material/);
    }
  });

  it('cannot be used after its end', () => {
    const key = KeyMaterial.take(Buffer.from(KEY));
    key[Symbol.dispose]();
    assert.equal(key.length, 0);
    assert.throws(() => key.use(() => 0), shimFailure('INTERNAL', 'KEY_DISPOSED'));
  });
});

describe('key files', () => {
  it('every byte of the file is the key', async () => {
    const path = await file('plain', KEY);
    assert.deepEqual(await bytesOf(sources(), { kind: 'file', path }), KEY);
  });

  const refusals: readonly (readonly [string, () => Promise<string>, string, string])[] = [
    ['a mode that lets others read', () => file('open', KEY, 0o604), 'PERMISSION_DENIED', 'KEY_SOURCE_REFUSED'],
    ['a mode that lets the group read', () => file('group', KEY, 0o640), 'PERMISSION_DENIED', 'KEY_SOURCE_REFUSED'],
    ['no such file', () => Promise.resolve(join(directory, 'none')), 'NOT_FOUND', 'KEY_NOT_FOUND'],
    ['an empty file', () => file('empty', Buffer.alloc(0)), 'FAILED_PRECONDITION', 'KEY_EMPTY'],
    ['a long file', () => file('long', Buffer.alloc(KEY_BYTES_MAX + 1)), 'FAILED_PRECONDITION', 'KEY_TOO_LONG'],
    ['a relative path', () => Promise.resolve('plain'), 'PERMISSION_DENIED', 'KEY_SOURCE_REFUSED'],
    ['a path outside', () => Promise.resolve('/etc/passwd'), 'PERMISSION_DENIED', 'KEY_SOURCE_REFUSED'],
    [
      'a way out through ..',
      () => Promise.resolve(`${directory}/../../etc/passwd`),
      'PERMISSION_DENIED',
      'KEY_SOURCE_REFUSED',
    ],
    [
      'a symbolic link',
      async () => {
        const path = join(directory, 'link');
        await symlink(await file('target', KEY), path);
        return path;
      },
      'PERMISSION_DENIED',
      'KEY_SOURCE_REFUSED',
    ],
    [
      'a directory',
      async () => {
        const path = join(directory, 'folder');
        await mkdir(path, { mode: 0o700 });
        return path;
      },
      'PERMISSION_DENIED',
      'KEY_SOURCE_REFUSED',
    ],
    [
      'a FIFO, which nobody writes',
      () => {
        const path = join(directory, 'fifo');
        execFileSync('mkfifo', ['-m', '600', path]);
        return Promise.resolve(path);
      },
      'PERMISSION_DENIED',
      'KEY_SOURCE_REFUSED',
    ],
  ];
  for (const [what, make, code, reason] of refusals) {
    it(`${what}: ${reason}`, async () => {
      const path = await make();
      await assert.rejects(sources().fetch({ kind: 'file', path }, USE), shimFailure(code, reason));
    });
  }

  it('a file of another user is refused', { skip: !isRoot && 'needs root' }, async () => {
    const path = await file('foreign', KEY);
    await chown(path, 12345, 12345);
    const refused = shimFailure('PERMISSION_DENIED', 'KEY_SOURCE_REFUSED');
    await assert.rejects(sources().fetch({ kind: 'file', path }, USE), refused);
  });

  it('without a configured directory nothing is read', async () => {
    const path = await file('plain', KEY);
    const refused = shimFailure('PERMISSION_DENIED', 'KEY_SOURCE_REFUSED');
    await assert.rejects(sources({ directories: [] }).fetch({ kind: 'file', path }, USE), refused);
  });
});

describe('credentials of systemd', () => {
  it('a file right in $CREDENTIALS_DIRECTORY', async () => {
    await file('disk.key', KEY, 0o400);
    const from = sources({ credentialsDirectory: directory });
    assert.deepEqual(await bytesOf(from, { kind: 'systemd-credential', name: 'disk.key' }), KEY);
    for (const name of ['../x', 'a/b', '.hidden', '']) {
      const refused = shimFailure('PERMISSION_DENIED', 'KEY_SOURCE_REFUSED');
      await assert.rejects(from.fetch({ kind: 'systemd-credential', name }, USE), refused);
    }
  });

  it('none were given', async () => {
    const missing = shimFailure('NOT_FOUND', 'KEY_NOT_FOUND');
    await assert.rejects(sources().fetch({ kind: 'systemd-credential', name: 'disk.key' }, USE), missing);
  });
});

describe('environment', () => {
  it('is taken out of the environment at once, and only what is listed', async () => {
    const environment: NodeJS.ProcessEnv = { DISK_KEY: 'words', OTHER: 'kept' };
    using from = sources({ environment, environmentNames: ['DISK_KEY', 'UNSET'] });
    assert.deepEqual(environment, { OTHER: 'kept' });
    for (let time = 0; time < 2; time += 1) {
      assert.equal((await bytesOf(from, { kind: 'environment', name: 'DISK_KEY' })).toString(), 'words');
    }
    const refused = shimFailure('PERMISSION_DENIED', 'KEY_SOURCE_REFUSED');
    await assert.rejects(from.fetch({ kind: 'environment', name: 'OTHER' }, USE), refused);
    await assert.rejects(
      from.fetch({ kind: 'environment', name: 'UNSET' }, USE),
      shimFailure('NOT_FOUND', 'KEY_NOT_FOUND'),
    );
  });
});

describe('commands', () => {
  const sh = (script: string): KeySourcesOptions['commands'] =>
    new Map([['it', { file: '/bin/sh', args: ['-c', script] }]]);
  const run = async (script: string, changes: Partial<KeySourcesOptions> = {}): Promise<Buffer> =>
    await bytesOf(sources({ commands: sh(script), ...changes }), { kind: 'command', name: 'it' });

  it('what it prints is the key, every byte', async () => {
    assert.deepEqual(await run(String.raw`printf '\000\012\377k\n'`), Buffer.from([0, 10, 255, 0x6b, 10]));
  });

  it('it gets PATH and LC_ALL, and nothing else of the daemon', async () => {
    const environment = { PATH: '/usr/bin:/bin', SECRET: 'x' };
    const seen = (await run('env | cut -d= -f1 | sort | tr "\\n" " "', { environment })).toString();
    assert.equal(seen.replace(/(PWD|SHLVL|_) /g, ''), 'LC_ALL PATH ');
  });

  it('failures have reasons, and say nothing of what it printed', async () => {
    const failing = run('echo the-key; echo the-key >&2; exit 3');
    await assert.rejects(failing, (error: Error) => {
      assert.doesNotMatch(inspect(error, { depth: 9 }), /the-key/);
      return shimFailure('UNAVAILABLE', 'KEY_SOURCE_DOWN')(error);
    });
    await assert.rejects(run('kill -9 $$'), shimFailure('UNAVAILABLE', 'KEY_SOURCE_DOWN'));
    await assert.rejects(run('true'), shimFailure('FAILED_PRECONDITION', 'KEY_EMPTY'));
    await assert.rejects(
      run(`head -c ${KEY_BYTES_MAX + 1} /dev/zero`),
      shimFailure('FAILED_PRECONDITION', 'KEY_TOO_LONG'),
    );
    const missing = sources({ commands: new Map([['it', { file: '/nowhere/at/all', args: [] }]]) });
    await assert.rejects(
      missing.fetch({ kind: 'command', name: 'it' }, USE),
      shimFailure('UNAVAILABLE', 'KEY_SOURCE_DOWN'),
    );
    await assert.rejects(
      missing.fetch({ kind: 'command', name: 'other' }, USE),
      shimFailure('PERMISSION_DENIED', 'KEY_SOURCE_REFUSED'),
    );
  });

  it('one that hangs is ended with all that it started', async () => {
    const marker = join(directory, 'still-there');
    const script = `(sleep 0.6; echo x > ${marker}) & sleep 60`;
    await assert.rejects(run(script, { timeoutMs: 200 }), shimFailure('DEADLINE_EXCEEDED', 'KEY_SOURCE_TIMEOUT'));
    await sleep(900);
    await assert.rejects(rm(marker), { code: 'ENOENT' });
  });

  it('a caller that gives up ends it', async () => {
    const signal = AbortSignal.timeout(100);
    const hanging = sources({ commands: sh('sleep 60') }).fetch({ kind: 'command', name: 'it' }, USE, { signal });
    await assert.rejects(hanging, { name: 'TimeoutError' });
  });

  it('a command is an absolute path', () => {
    const commands = new Map([['it', { file: 'sh', args: [] }]]);
    assert.throws(() => sources({ commands }), shimFailure('PERMISSION_DENIED', 'KEY_SOURCE_REFUSED'));
  });
});

it('a reference in words', () => {
  assert.equal(describeReference({ kind: 'tang', path: '/etc/keys/a.jwe' }), 'tang:/etc/keys/a.jwe');
  assert.equal(describeReference({ kind: 'command', name: 'vault' }), 'command:vault');
});

describe('bindings of keys', () => {
  const UUID = '01234567-89ab-cdef-0123-456789abcdef';
  const bindings = new KeyBindings([
    'file:/k/a* kind=host_luks label=tenant=a',
    `env:B uuid=${UUID}`,
    'command:c kind=guest_luks2',
    'file:/k/all label=tenant=a label=tier=gold=1',
  ]);
  const allowed = (reference: string, use: Partial<KeyUse>): boolean => {
    try {
      bindings.check(reference, { ...USE, ...use });
      return true;
    } catch (error) {
      assert.ok(shimFailure('PERMISSION_DENIED', 'KEY_BOUND')(error));
      return false;
    }
  };

  it('let a key be used for what all of its bindings allow, and for nothing else', () => {
    for (const [reference, use, expected] of [
      ['file:/k/a1', {}, true],
      ['file:/k/a1', { kind: 'guest_luks2' }, false],
      ['file:/k/a1', { labels: { tenant: 'b' } }, false],
      ['file:/k/a1', { labels: {} }, false],
      // An image that no sandbox has.
      ['file:/k/a1', { labels: undefined }, false],
      ['environment:B', { uuid: UUID }, true],
      ['environment:B', { uuid: undefined }, false],
      ['environment:B', { uuid: UUID, creates: true }, false],
      ['command:c', { kind: 'guest_luks2' }, true],
      ['command:c', {}, false],
      ['command:cc', {}, true],
      ['file:/k/all', { labels: { tenant: 'a', tier: 'gold=1' } }, true],
      // It begins as the first binding says, too.
      ['file:/k/all', { kind: 'guest_luks2', labels: { tenant: 'a', tier: 'gold=1' } }, false],
      ['file:/k/other', { kind: 'guest_luks2', labels: undefined }, true],
    ] as const) {
      assert.equal(allowed(reference, use), expected, `${reference} ${JSON.stringify(use)}`);
    }
  });

  it('are read strictly', () => {
    for (const [line, problem] of [
      ['file:/k', /binds the key to nothing/],
      ['/k kind=host_luks', /does not begin with a reference/],
      ['file:/k kind=luks', /has "kind=luks"/],
      ['file:/k uuid=x', /has "uuid=x"/],
      ['file:/k label=tenant', /has "label=tenant"/],
      ['file:/k roots=/srv', /has "roots=\/srv"/],
    ] as const) {
      assert.throws(() => new KeyBindings([line]), problem, line);
    }
  });

  it('are asked before the source is', async () => {
    const from = sources({ bindings: new KeyBindings(['file:/none kind=guest_luks2']) });
    const bound = shimFailure('PERMISSION_DENIED', 'KEY_BOUND');
    await assert.rejects(from.fetch({ kind: 'file', path: '/none' }, USE), bound);
  });
});
