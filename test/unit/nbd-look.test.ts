import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { missingCommands } from '../../scripts/lib/packages.ts';
import { ShimError } from '../../src/base/errors.ts';
import { lookAtExport, type NbdExportInfo } from '../../src/volume/source/nbd-look.ts';
import { TestAuthority } from '../support/nbd.ts';
import {
  NbdPeer,
  OPT_INFO,
  ack,
  blockSizeInfo,
  exportInfo,
  greeting,
  otherInfo,
  reply,
  uint16,
  uint32,
} from '../support/nbd-peer.ts';

const OPT_ABORT = 2;
const OPT_STARTTLS = 5;
const SIZE = 2n ** 30n;
const GOOD = [greeting(), blockSizeInfo(512), exportInfo(SIZE), ack()];
const REP_ERR = { unsup: 2 ** 31 + 1, policy: 2 ** 31 + 2, tlsReqd: 2 ** 31 + 5, unknown: 2 ** 31 + 6 };

function look(peer: NbdPeer, exportName = 'disk', tls?: string): Promise<NbdExportInfo> {
  const credentials = tls === undefined ? undefined : { directory: tls, hostname: 'localhost' };
  const server = { type: 'unix', path: peer.path } as const;
  return lookAtExport({ server, exportName, tls: credentials, described: 'nbd:test' });
}

/** The refusal of a look at a server that says this. */
async function refused(parts: readonly Buffer[], exportName?: string): Promise<ShimError> {
  await using peer = await NbdPeer.saying(...parts);
  return await refusalOf(look(peer, exportName));
}

async function refusalOf(work: Promise<unknown>): Promise<ShimError> {
  const error: unknown = await work.then(
    (answer) => assert.fail(`it was not refused: ${JSON.stringify(answer)}`),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof ShimError, String(error));
  assert.equal(error.code, 'FAILED_PRECONDITION');
  assert.deepEqual(error.metadata, { field: 'spec.source', value: 'nbd:test' });
  return error;
}

/** What a client sends that looks at an export and leaves. */
function asked(exportName: string): Buffer {
  const name = Buffer.from(exportName);
  return Buffer.concat([
    uint32(3),
    Buffer.from('IHAVEOPT'),
    ...[uint32(OPT_INFO), uint32(name.length + 8), uint32(name.length), name, uint16(1), uint16(3)],
    Buffer.from('IHAVEOPT'),
    ...[uint32(OPT_ABORT), uint32(0)],
  ]);
}

describe('a look at an NBD export', () => {
  it('asks and leaves, and never becomes a client that counts', async () => {
    for (const name of ['disk', 'ü b', '']) {
      await using peer = await NbdPeer.saying(...GOOD, ack(OPT_ABORT));
      assert.deepEqual(await look(peer, name), { sizeBytes: Number(SIZE), readOnly: false, minBlockBytes: 512 });
      assert.deepEqual(await peer.heard(), asked(name));
    }
  });

  const ANSWERS: readonly (readonly [string, readonly Buffer[], NbdExportInfo])[] = [
    [
      'information in another order, and of kinds that nobody knows',
      [otherInfo(), exportInfo(4096n), otherInfo(), blockSizeInfo(4096), ack()],
      { sizeBytes: 4096, readOnly: false, minBlockBytes: 4096 },
    ],
    ['no block size', [exportInfo(5n), ack()], { sizeBytes: 5, readOnly: false, minBlockBytes: 1 }],
    [
      'a read-only export',
      [exportInfo(512n, 0b111), blockSizeInfo(1), ack()],
      { sizeBytes: 512, readOnly: true, minBlockBytes: 1 },
    ],
    [
      'more bytes than can be counted',
      [exportInfo(2n ** 64n - 1n), blockSizeInfo(65_536), ack()],
      { sizeBytes: 2 ** 64, readOnly: false, minBlockBytes: 65_536 },
    ],
  ];
  for (const [name, answer, info] of ANSWERS) {
    it(name, async () => {
      await using peer = await NbdPeer.saying(greeting(), ...answer, ack(OPT_ABORT));
      assert.deepEqual(await look(peer), info);
    });
  }

  it('takes only the flags that the server offers', async () => {
    await using peer = await NbdPeer.saying(greeting(1), ...GOOD.slice(1), ack(OPT_ABORT));
    await look(peer);
    assert.deepEqual((await peer.heard()).subarray(0, 4), uint32(1));
  });

  it('bytes may come one by one', async () => {
    const bytes = Buffer.concat([...GOOD, ack(OPT_ABORT)]);
    await using peer = await NbdPeer.start((client) => {
      void (async () => {
        for (const byte of bytes) {
          client.write(Buffer.from([byte]));
          await new Promise(setImmediate);
        }
      })();
    });
    assert.equal((await look(peer)).sizeBytes, Number(SIZE));
  });

  it('a server that leaves after the last answer has answered', async () => {
    await using peer = await NbdPeer.saying(...GOOD);
    assert.equal((await look(peer)).sizeBytes, Number(SIZE));
  });
});

describe('what is no answer', () => {
  it('a server that hangs up is unreachable, wherever it does', async () => {
    const bytes = Buffer.concat(GOOD);
    for (let length = 0; length < bytes.length; length += 1) {
      assert.equal((await refused([bytes.subarray(0, length)])).reason, 'NBD_SERVER_UNREACHABLE', `after ${length}`);
    }
  });

  it('a server that does not speak NBD is told nothing', async () => {
    for (const says of ['SSH-2.0-OpenSSH_9.2\r\n', 'HTTP/1.1 400 Bad Request\r\n', 'NBDMAGICNBDMAGIC..']) {
      await using peer = await NbdPeer.start((client) => client.write(says));
      assert.equal((await refusalOf(look(peer))).reason, 'SOURCE_NOT_USABLE', says);
      assert.equal((await peer.heard()).length, 0);
    }
  });

  it('the old style is named', async () => {
    const old = Buffer.concat([Buffer.from('NBDMAGIC'), Buffer.from('00420281861253', 'hex')]);
    const sized = Buffer.concat([old.subarray(0, 8), Buffer.from('0000420281861253', 'hex'), Buffer.alloc(140)]);
    for (const says of [sized, greeting(2)]) assert.match((await refused([says])).message, /old style/);
  });

  const GARBAGE: readonly (readonly [string, readonly Buffer[]])[] = [
    ['another magic number', [Buffer.alloc(20, 7)]],
    ['an answer to another question', [exportInfo(SIZE), ack(OPT_ABORT)]],
    ['an answer that is longer than any', [reply(OPT_INFO, 3).fill(0xff, 16)]],
    ['an answer a byte too long', [reply(OPT_INFO, 3, Buffer.alloc(8193))]],
    ['success without a size', [blockSizeInfo(512), ack()]],
    ['information of no kind', [reply(OPT_INFO, 3, Buffer.from([0])), ack()]],
    ['a size that is cut off', [reply(OPT_INFO, 3, Buffer.alloc(11)), ack()]],
    ['a size that is too long', [reply(OPT_INFO, 3, Buffer.alloc(13)), ack()]],
    ['blocks of 0 bytes', [exportInfo(SIZE), blockSizeInfo(0), ack()]],
    ['blocks of 3 bytes', [exportInfo(SIZE), blockSizeInfo(3), ack()]],
    ['blocks larger than the protocol has', [exportInfo(SIZE), blockSizeInfo(131_072), ack()]],
    ['blocks of 2 GiB', [exportInfo(SIZE), blockSizeInfo(2 ** 31), ack()]],
    ['answers without end', Array.from({ length: 40 }, otherInfo)],
  ];
  for (const [name, answer] of GARBAGE) {
    it(`${name} is refused`, async () => {
      assert.equal((await refused([greeting(), ...answer])).reason, 'SOURCE_NOT_USABLE');
    });
  }

  it('whatever a server says, the answer is a size or a refusal', async () => {
    const part = fc.oneof(
      fc.uint8Array({ maxLength: 64 }).map((bytes) => Buffer.from(bytes)),
      fc.constantFrom(...GOOD, otherInfo(), ack(OPT_ABORT), exportInfo(0n), Buffer.from('NBDMAGIC')),
    );
    await fc.assert(
      fc.asyncProperty(fc.boolean(), fc.array(part, { maxLength: 6 }), async (greets, parts) => {
        await using peer = await NbdPeer.saying(...(greets ? [greeting()] : []), ...parts);
        const seen = await look(peer).catch((error: unknown) => error);
        if (seen instanceof ShimError) assert.equal(seen.code, 'FAILED_PRECONDITION');
        else assert.ok(typeof seen === 'object' && seen !== null && 'sizeBytes' in seen, String(seen));
      }),
      { numRuns: 150 },
    );
  });

  it('nobody listens, or there is no such host', async () => {
    await using peer = await NbdPeer.saying();
    const at = { exportName: '', tls: undefined, described: 'nbd:test' };
    for (const server of [
      { type: 'unix', path: join(peer.directory, 'other.sock') },
      { type: 'inet', host: '127.0.0.1', port: 1 },
      { type: 'inet', host: 'no-such-host.invalid', port: 1 },
    ] as const) {
      assert.equal((await refusalOf(lookAtExport({ ...at, server }))).reason, 'NBD_SERVER_UNREACHABLE');
    }
  });

  it('a server that says nothing is given up on', async (context) => {
    for (const says of [[], GOOD.slice(0, 2)]) {
      await using peer = await NbdPeer.start((client) => client.write(Buffer.concat(says)));
      context.mock.timers.enable({ apis: ['setTimeout'] });
      const work = refusalOf(look(peer));
      while (peer.clients === 0) await new Promise(setImmediate);
      context.mock.timers.tick(10_000);
      context.mock.timers.reset();
      const error = await work;
      assert.equal(error.reason, 'NBD_SERVER_UNREACHABLE');
      assert.match(error.message, /does not answer within 10000 ms/);
    }
  });
});

describe('what a server refuses', () => {
  const because = (type: number, text = ''): readonly Buffer[] => [
    greeting(),
    reply(OPT_INFO, type, Buffer.from(text)),
  ];

  it('an export that it does not have', async () => {
    const error = await refused(because(REP_ERR.unknown, 'export not present'), 'nope');
    assert.equal(error.reason, 'NBD_EXPORT_NOT_FOUND');
    assert.match(error.message, /has no export "nope", and says "export not present"/);
    assert.match((await refused(because(REP_ERR.unknown), '')).message, /has no default export$/);
  });

  it('a client without TLS', async () => {
    assert.equal((await refused(because(REP_ERR.tlsReqd))).reason, 'NBD_TLS_FAILED');
  });

  it('a question that it does not know, and anything else', async () => {
    assert.match((await refused(because(REP_ERR.unsup))).message, /NBD_OPT_INFO/);
    const policy = await refused(because(REP_ERR.policy, `no\u001b[31m${'x'.repeat(4000)}`));
    assert.equal(policy.reason, 'SOURCE_NOT_USABLE');
    assert.match(policy.message, /0x80000002/);
    assert.doesNotMatch(policy.message, /\u001b/);
    assert.ok(policy.message.length < 500, 'what a server says is cut');
  });

  it('a client to whom it told the size before', async () => {
    const parts = [greeting(), exportInfo(SIZE), reply(OPT_INFO, REP_ERR.tlsReqd)];
    assert.equal((await refused(parts)).reason, 'NBD_TLS_FAILED');
  });
});

describe('TLS', () => {
  it('credentials that are not there, or are none, cost no connection', async () => {
    await using peer = await NbdPeer.saying(...GOOD);
    const missing = await refusalOf(look(peer, 'disk', join(peer.directory, 'missing')));
    assert.equal(missing.reason, 'NBD_TLS_FAILED');
    assert.match(missing.message, /no ca-cert\.pem/);
    await writeFile(join(peer.directory, 'ca-cert.pem'), 'no certificate');
    await writeFile(join(peer.directory, 'client-cert.pem'), 'no certificate');
    await writeFile(join(peer.directory, 'client-key.pem'), 'top secret');
    const wrong = await refusalOf(look(peer, 'disk', peer.directory));
    assert.equal(wrong.reason, 'NBD_TLS_FAILED');
    assert.doesNotMatch(JSON.stringify([wrong.message, wrong.metadata, String(wrong.cause)]), /top secret/);
    assert.equal(peer.clients, 0);
  });

  const noOpenssl = missingCommands(['openssl']).length > 0 ? 'openssl is not installed' : false;
  describe('asked of a server', { skip: noOpenssl }, () => {
    const REFUSALS: readonly (readonly [string, readonly Buffer[], RegExp])[] = [
      [
        'that does not do it',
        [reply(OPT_STARTTLS, REP_ERR.unsup, Buffer.from('no'))],
        /does not do TLS, and says "no"/,
      ],
      ['that says yes and goes on in plain', [ack(OPT_STARTTLS), ...GOOD.slice(1)], /plain bytes/],
      ['that says yes and hangs up', [ack(OPT_STARTTLS)], /TLS/],
    ];
    for (const [name, answer, says] of REFUSALS) {
      it(name, async () => {
        await using peer = await NbdPeer.saying(greeting(), ...answer);
        const authority = await TestAuthority.make(peer.directory);
        await authority.issue('client');
        const error = await refusalOf(look(peer, 'disk', peer.directory));
        assert.equal(error.reason, 'NBD_TLS_FAILED');
        assert.match(error.message, says);
        assert.ok(!(await peer.heard()).includes('disk'), 'the name of the export is not said in plain');
      });
    }
  });
});
