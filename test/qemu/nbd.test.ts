import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { copyFile, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { ensureCommands, isRoot, missingCommands, type Command } from '../../scripts/lib/packages.ts';
import type { NbdExport } from '../../src/grpc/generated/qshim/v1/NbdExport.ts';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import type { VolumeSpec } from '../../src/grpc/generated/qshim/v1/VolumeSpec.ts';
import { TestDaemon, call } from '../support/daemon.ts';
import { assertRefusal, refusal, refusedWithoutTrace, type ExpectedRefusal } from '../support/errors.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { qemuInventory, type QemuInventory } from '../support/leaks.ts';
import { NbdServerProcess, TestAuthority, freeAddress } from '../support/nbd.ts';
import { NbdPeer, ack, exportInfo, greeting } from '../support/nbd-peer.ts';
import { run } from '../support/run-qshim.ts';
import { until } from '../support/until.ts';

/** NBD volumes, from real servers to the guest and back. */

const TOOLS: readonly Command[] = ['qemu-nbd', 'nbdkit', 'openssl'];
const missing = isRoot() ? [] : missingCommands(TOOLS);
const skip = (await realVmSkipReason()) || (missing.length > 0 && `not installed: ${missing.join(', ')}`);
const MIB = 1024 * 1024;
const HOST = '127.0.0.1';
const OPT_ABORT = 2;
/** Seconds: longer than any server of these tests is away. */
const PATIENCE_S = 600;

await describe('NBD volumes', { skip }, async () => {
  let tlsDir: string;
  let daemon: TestDaemon;
  let stateDir: string;
  let qemuPid: number;
  const startDaemon = (options: { readonly directory?: string } = {}): Promise<TestDaemon> =>
    TestDaemon.start({ ...options, config: { nbd_hosts: HOST, nbd_tls_directory: tlsDir } });
  before(async () => {
    await ensureCommands(TOOLS);
    tlsDir = await mkdtemp(join(tmpdir(), 'qshim-tls-'));
    daemon = await startDaemon();
    ({ stateDir, qemuPid } = await daemon.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 1 } }));
  });
  after(async () => {
    await daemon[Symbol.asyncDispose]();
    await rm(tlsDir, { recursive: true, force: true });
  });

  const inventory = (): Promise<QemuInventory> => qemuInventory(stateDir, qemuPid);
  const attach = (volumeId: string, nbdExport: NbdExport, changes: VolumeSpec = {}): Promise<Volume__Output> =>
    daemon.client.attach({ sandboxId: 'vm', volumeId, spec: { nbdExport, ...changes } });
  const detach = (volumeId: string): Promise<Volume__Output> => daemon.client.detach({ sandboxId: 'vm', volumeId });
  const resize = (volumeId: string, sizeBytes: number): Promise<Volume__Output> =>
    call((done) => daemon.client.volumes.resize({ sandboxId: 'vm', volumeId, sizeBytes }, done));
  const volume = (volumeId: string): Promise<Volume__Output> => daemon.client.getVolume('vm', volumeId);
  const guest = (script: string): Promise<string> => daemon.client.guest('vm', script);
  const socketPath = (name: string): string => join(daemon.volumeDir, `${name}.sock`);

  /** Random bytes, kept in the guest as /tmp/random; their SHA-256. */
  const random = async (bytes: number): Promise<string> => {
    const sum = await guest(
      `dd if=/dev/urandom of=/tmp/random bs=64k count=${bytes / 65_536} 2>/dev/null; sha256sum < /tmp/random`,
    );
    return sum.split(' ', 1)[0] ?? '';
  };
  const copyTo = (device: string): Promise<string> =>
    guest(`dd if=/tmp/random of=${device} bs=64k conv=fsync 2>/dev/null`);
  const sumInGuest = async (device: string, bytes: number): Promise<string> =>
    (await guest(`dd if=${device} bs=64k count=${bytes / 65_536} iflag=direct 2>/dev/null | sha256sum`)).slice(0, 64);
  const sumOnHost = async (path: string, bytes: number): Promise<string> =>
    createHash('sha256')
      .update((await readFile(path)).subarray(0, bytes))
      .digest('hex');

  await it('over a unix socket: a file system on a server that serves one client and ends with it', async () => {
    const before = await inventory();
    const path = socketPath('one');
    const file = await daemon.rawFile('one.raw', 32 * MIB);
    await using server = await NbdServerProcess.qemuNbd({ path }, file, 'disk');
    const mount = { fsType: 'ext4', mountPoint: '/mnt/one', options: [], format: 'FORMAT_IF_EMPTY' as const };
    const attached = await attach('one', { socket: path, exportName: 'disk' }, { mount });
    assert.deepEqual(
      [attached.state, attached.sizeBytes, attached.formatted],
      ['VOLUME_STATE_ATTACHED', 32 * MIB, true],
    );
    assert.deepEqual(attached.aio, 'AIO_MODE_AUTO');
    await guest('echo kept > /mnt/one/file');
    assert.equal((await detach('one')).state, 'VOLUME_STATE_REMOVED');
    await server.ended();
    assert.deepEqual(await inventory(), before);
    assert.ok((await readFile(file)).includes('kept'));
  });

  await it('over TCP, by the command: written bytes come back, the size stays, and nothing is left', async () => {
    const before = await inventory();
    const address = await freeAddress();
    const file = await daemon.rawFile('tcp.raw');
    await using _server = await NbdServerProcess.nbdkit(address, ['file', file]);
    const uri = `nbd://${HOST}:${address.port}/any%20name`;
    const ran = await run(['volume', 'attach', 'vm', 'tcp', '--nbd', uri], { socket: daemon.socket });
    assert.equal(ran.exitCode, 0, ran.stderr);
    const listed = await run(['volume', 'list', 'vm'], { socket: daemon.socket });
    assert.ok(listed.stdout.includes(uri), listed.stdout.toString());
    const { guestDevice } = await volume('tcp');
    const sum = await random(4 * MIB);
    await copyTo(guestDevice);
    assert.equal(await sumInGuest(guestDevice, 4 * MIB), sum);
    const grown = await refusal(resize('tcp', 32 * MIB));
    assert.match(grown.message, /Cannot grow NBD nodes/);
    assertRefusal(grown, { code: 'FAILED_PRECONDITION', reason: 'RESIZE_FAILED' });
    assert.equal((await volume('tcp')).sizeBytes, 16 * MIB);
    const second = await refusal(attach('second', { host: HOST, port: address.port, exportName: 'any name' }));
    assertRefusal(second, { code: 'FAILED_PRECONDITION', reason: 'BACKING_IN_USE' });
    await detach('tcp');
    assert.equal(await sumOnHost(file, 4 * MIB), sum);
    assert.deepEqual(await inventory(), before);
  });

  await it('a read-only export takes a read-only volume, and blocks of 4096 bytes any guest', async () => {
    const path = socketPath('ro');
    const sized = [
      '--filter=blocksize-policy',
      'memory',
      '1M',
      'blocksize-minimum=4096',
      'blocksize-error-policy=error',
    ];
    {
      await using _server = await NbdServerProcess.nbdkit({ path }, ['-r', ...sized]);
      const refused = await refusedWithoutTrace(daemon, () => attach('ro', { socket: path }));
      assertRefusal(refused, { code: 'PERMISSION_DENIED', reason: 'NBD_EXPORT_READ_ONLY', field: 'spec.source' });
      const { guestDevice } = await attach('ro', { socket: path }, { readOnly: true });
      const written = await daemon.client.exec('vm', `dd if=/dev/zero of=${guestDevice} bs=512 count=1`);
      assert.notEqual(written.exitCode, 0);
      assert.match(await sumInGuest(guestDevice, MIB), /^[0-9a-f]{64}$/);
      await detach('ro');
    }
    await rm(path);
    await using _server = await NbdServerProcess.nbdkit({ path }, sized);
    const { guestDevice } = await attach('ro', { socket: path });
    await guest(`echo hello | dd of=${guestDevice} bs=512 count=1 seek=3 conv=sync oflag=direct 2>/dev/null`);
    assert.match(await guest(`dd if=${guestDevice} bs=512 count=1 skip=3 iflag=direct 2>/dev/null`), /^hello\n/);
    await detach('ro');
  });

  await it('refusals leave no trace, and name what is wrong', async () => {
    const path = socketPath('refusing');
    const file = await daemon.rawFile('refusing.raw');
    await using _server = await NbdServerProcess.qemuNbd({ path }, file, 'disk', ['-t']);
    const nobody = await freeAddress();
    const good: NbdExport = { socket: path, exportName: 'disk' };
    const ROWS: readonly (readonly [NbdExport, VolumeSpec, ExpectedRefusal])[] = [
      [{ ...good, exportName: 'nope' }, {}, { code: 'FAILED_PRECONDITION', reason: 'NBD_EXPORT_NOT_FOUND' }],
      [good, { aio: 'AIO_MODE_THREADS' }, { code: 'INVALID_ARGUMENT', reason: 'INVALID_FIELD', field: 'spec.aio' }],
      [nobody, {}, { code: 'FAILED_PRECONDITION', reason: 'NBD_SERVER_UNREACHABLE' }],
      [
        { ...nobody, host: 'localhost' },
        {},
        { code: 'PERMISSION_DENIED', reason: 'NBD_HOST_NOT_ALLOWED', field: 'spec.source.host', value: 'localhost' },
      ],
      [{ socket: daemon.socket }, {}, { code: 'PERMISSION_DENIED', reason: 'OUTSIDE_ALLOWED_ROOTS' }],
      [{ socket: file }, {}, { code: 'INVALID_ARGUMENT', reason: 'WRONG_FILE_TYPE', value: file }],
      [{ ...good, tlsCredentials: 'none' }, {}, { code: 'FAILED_PRECONDITION', reason: 'NBD_TLS_FAILED' }],
    ];
    for (const [nbdExport, changes, expected] of ROWS) {
      assertRefusal(await refusedWithoutTrace(daemon, () => attach('refused', nbdExport, changes)), expected);
    }
  });

  await it('a server that falls silent after the look holds the VM up for seconds only', async () => {
    const says = Buffer.concat([greeting(), exportInfo(BigInt(MIB)), ack(), ack(OPT_ABORT)]);
    const before = await inventory();
    await using peer = await NbdPeer.start((client) => {
      if (peer.clients === 1) client.write(says);
    }, daemon.volumeDir);
    const refused = await refusal(attach('silent', { socket: peer.path }));
    assertRefusal(refused, { code: 'FAILED_PRECONDITION', reason: 'SOURCE_NOT_USABLE' });
    assert.match(refused.message, /timeout/);
    assert.equal(peer.clients, 2);
    assert.equal(await guest('echo alive'), 'alive\n');
    assert.deepEqual(await inventory(), before);
  });

  await it('a server that is killed and comes back under a running write: the guest waits, and sees no error', async () => {
    const path = socketPath('back');
    const file = await daemon.rawFile('back.raw', 32 * MIB);
    const serve = (): Promise<NbdServerProcess> => NbdServerProcess.qemuNbd({ path }, file, 'disk', ['-t']);
    await using first = await serve();
    const nbdExport = { socket: path, exportName: 'disk', reconnectDelayS: PATIENCE_S };
    const { guestDevice } = await attach('back', nbdExport);
    const sum = await random(16 * MIB);
    await guest(
      `(dd if=/tmp/random of=${guestDevice} bs=4k oflag=direct 2>/tmp/said; echo $? > /tmp/code) >/dev/null 2>&1 &`,
    );
    await until('some is written', async () => (await stat(file)).blocks > 0);
    await first.kill();
    assert.equal(await guest('cat /tmp/code 2>/dev/null || echo waiting'), 'waiting\n', 'the server went too late');
    await using _second = await serve();
    await until('all is written', async () => (await guest('cat /tmp/code 2>/dev/null || true')) !== '');
    assert.equal(await guest('cat /tmp/code'), '0\n', await guest('cat /tmp/said'));
    assert.equal(await sumInGuest(guestDevice, 16 * MIB), sum);
    const { health } = await volume('back');
    assert.deepEqual([health?.failing, health?.errors], [false, 0]);
    await detach('back');
    assert.equal(await sumOnHost(file, 16 * MIB), sum);
  });

  await it('without a delay the guest sees the error, the health says so, and a server that is back serves on', async () => {
    const path = socketPath('error');
    const file = await daemon.rawFile('error.raw');
    const serve = (): Promise<NbdServerProcess> => NbdServerProcess.qemuNbd({ path }, file, 'disk', ['-t']);
    await using first = await serve();
    const { guestDevice } = await attach('error', { socket: path, exportName: 'disk' });
    const write = `echo hello | dd of=${guestDevice} bs=4k count=1 conv=sync oflag=direct`;
    await guest(write);
    await first.kill();
    assert.notEqual((await daemon.client.exec('vm', write)).exitCode, 0);
    await until('health', async () => (await volume('error')).health?.failing === true);
    const { state, health } = await volume('error');
    assert.deepEqual([state, health?.lastOperation, health?.lastAction], ['VOLUME_STATE_ATTACHED', 'write', 'report']);
    await using _second = await serve();
    await until('it serves on', async () => (await daemon.client.exec('vm', write)).exitCode === 0);
    await detach('error');
    assert.ok((await readFile(file)).includes('hello'));
  });

  await it('TLS: both sides prove who they are, daemons come and go, also without a journal', async () => {
    const before = await inventory();
    const address = await freeAddress();
    const credentials = await makeCredentials();
    const strict = ['--tls=require', `--tls-certificates=${credentials.server}`, '--tls-verify-peer'];
    await using _server = await NbdServerProcess.nbdkit(address, [...strict, 'memory', '16M']);
    const { host, port } = address;
    const failed = { code: 'FAILED_PRECONDITION', reason: 'NBD_TLS_FAILED', field: 'spec.source' };
    for (const tlsCredentials of ['', 'doubter', 'stranger', 'halves', 'missing']) {
      const refused = await refusedWithoutTrace(daemon, () => attach('tls', { host, port, tlsCredentials }));
      assertRefusal(refused, failed);
    }
    const nbdExport = { host, port, exportName: 'secret', tlsCredentials: 'good', reconnectDelayS: 5 };
    const attached = await attach('tls', nbdExport);
    const device = attached.guestDevice;
    const sum = await random(MIB);
    await copyTo(device);
    const there = await inventory();
    assert.deepEqual(there.objects, [...before.objects, `vol-${attached.generation}-tls-good`].sort());

    await daemon.kill('SIGKILL');
    daemon = await startDaemon({ directory: daemon.directory });
    await until('the agent', async () => (await daemon.client.getSandbox('vm')).agentReady);
    assert.deepEqual((await volume('tls')).spec, attached.spec);
    assert.equal((await attach('tls', nbdExport)).generation, attached.generation, 'the same Attach again');

    await daemon.kill('SIGKILL');
    await writeFile(join(stateDir, 'state.json'), 'not json at all');
    daemon = await startDaemon({ directory: daemon.directory });
    await until('attached', async () => (await volume('tls')).state === 'VOLUME_STATE_ATTACHED');
    const recovered = await volume('tls');
    assert.deepEqual(recovered.spec, {
      ...attached.spec,
      nbdExport: { ...attached.spec?.nbdExport, reconnectDelayS: 0 },
    });
    assert.deepEqual(await inventory(), there, 'its credentials are no stray');
    await until('the agent', async () => (await daemon.client.getSandbox('vm')).agentReady);
    assert.equal(await sumInGuest(device, MIB), sum);
    const second = await refusal(attach('second', { ...nbdExport }));
    assertRefusal(second, { code: 'FAILED_PRECONDITION', reason: 'BACKING_IN_USE' });
    assert.equal((await detach('tls')).state, 'VOLUME_STATE_REMOVED');
    assert.deepEqual(await inventory(), before);
    assert.ok(!(await daemon.log()).includes('PRIVATE KEY'));
  });

  await it('TLS: the certificate names the host; for a unix socket, localhost', async () => {
    const before = await inventory();
    const authority = await TestAuthority.make(join(tlsDir, 'named'));
    await authority.issue('client');
    for (const [names, works] of [
      ['IP:127.0.0.1,DNS:elsewhere.example', ['inet']],
      ['DNS:localhost', ['unix']],
    ] as const) {
      await authority.issue('server', names);
      const strict = [
        '--tls=require',
        `--tls-certificates=${join(tlsDir, 'named')}`,
        '--tls-verify-peer',
        'memory',
        '1M',
      ];
      const [inet, path] = [await freeAddress(), socketPath(`tls-${works[0]}`)];
      await using _inet = await NbdServerProcess.nbdkit(inet, strict);
      await using _unix = await NbdServerProcess.nbdkit({ path }, strict);
      const addresses: Readonly<Record<string, NbdExport>> = { inet, unix: { socket: path } };
      for (const [name, address] of Object.entries(addresses)) {
        const work = attach('tls', { ...address, tlsCredentials: 'named' });
        if (!works.some((one) => one === name)) {
          assertRefusal(await refusal(work), { code: 'FAILED_PRECONDITION', reason: 'NBD_TLS_FAILED' });
          continue;
        }
        const { guestDevice } = await work;
        await guest(`echo hello | dd of=${guestDevice} conv=sync oflag=direct 2>/dev/null`);
        await detach('tls');
      }
    }
    assert.deepEqual(await inventory(), before);
  });

  /**
   * Credentials below the daemon's directory, by name; and the directory of a server that takes `good`, and is good for
   * it.
   */
  async function makeCredentials(): Promise<{ readonly server: string }> {
    const [ours, theirs] = await Promise.all(
      ['ours', 'theirs'].map(async (name) => {
        const directory = join(tlsDir, `authority-${name}`);
        const authority = await TestAuthority.make(directory);
        await authority.issue('server');
        await authority.issue('client');
        return directory;
      }),
    );
    assert.ok(ours !== undefined && theirs !== undefined);
    const PARTS: readonly (readonly [name: string, ca: string, client: string, key: string])[] = [
      ['good', ours, ours, ours],
      // It does not trust the server.
      ['doubter', theirs, ours, ours],
      // The server does not trust it.
      ['stranger', ours, theirs, theirs],
      // Its key is of another certificate.
      ['halves', ours, ours, theirs],
    ];
    for (const [name, ca, client, key] of PARTS) {
      const directory = join(tlsDir, name);
      await mkdir(directory);
      await copyFile(join(ca, 'ca-cert.pem'), join(directory, 'ca-cert.pem'));
      await copyFile(join(client, 'client-cert.pem'), join(directory, 'client-cert.pem'));
      await copyFile(join(key, 'client-key.pem'), join(directory, 'client-key.pem'));
    }
    return { server: ours };
  }
});
