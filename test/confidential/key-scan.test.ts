import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, rmdir, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { pathToFileURL } from 'node:url';
import { ConfidentialRig, guestLuks2, hostLuks, MIB, mountAt, NOTHING_LEFT } from '../support/confidential.ts';
import { call, TestDaemon } from '../support/daemon.ts';
import { refusal } from '../support/errors.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { needlesOf, scanBytes, scanFiles, scanProcesses, scanUnnamed, type Finding } from '../support/key-scan.ts';
import { makeImage } from '../support/luks-tool.ts';

const skip = await realVmSkipReason();
const support = join(import.meta.dirname, '../support');

await describe('the scan for keys itself', async () => {
  const key = randomBytes(48);
  const needles = needlesOf(key);
  const forms: readonly (readonly [string, (window: Buffer) => Buffer])[] = [
    ['raw', (window) => window],
    ['hex', (window) => Buffer.from(window.toString('hex'))],
    ['HEX', (window) => Buffer.from(window.toString('hex').toUpperCase())],
    ['base64', (window) => Buffer.from(window.toString('base64'))],
    ['base64url', (window) => Buffer.from(window.toString('base64url'))],
    ['inspect', (window) => Buffer.from((window.toString('hex').match(/../g) ?? []).join(' '))],
    ['json', (window) => Buffer.from(JSON.stringify(window))],
  ];
  for (const [form, write] of forms) {
    await it(`finds any part of 18 bytes, written as ${form}, whatever stands before and behind`, () => {
      for (let at = 0; at + 18 <= key.length; at += 1) {
        for (const before of [0, 1, 2, 3]) {
          const text = write(Buffer.concat([randomBytes(before), key.subarray(at, at + 18), randomBytes(2)]));
          const bytes = Buffer.concat([randomBytes(100), text, randomBytes(100)]);
          assert.notEqual(scanBytes('x', bytes, needles), undefined, `${form} at ${at} behind ${before}`);
        }
      }
    });
  }
  await it('finds an array of bytes by its indices', () => {
    const text = Buffer.from(JSON.stringify({ key: new Uint8Array(key) }));
    assert.equal(scanBytes('x', text, needles)?.form, 'indexed');
  });
  await it('finds nothing in noise', () => {
    assert.equal(scanBytes('x', randomBytes(MIB), needles), undefined);
  });
});

await describe('keys in use', { skip }, async () => {
  let rig: ConfidentialRig;
  let recorded: string;
  let secrets: string;
  // Text, for QEMU; any bytes, for the guest.
  const hostKey = Buffer.from(randomBytes(36).toString('base64url'));
  const newKey = Buffer.from(randomBytes(36).toString('base64url'));
  const guestKey = randomBytes(64);
  const wrongKey = Buffer.from(randomBytes(36).toString('base64url'));
  const all = [hostKey, newKey, guestKey, wrongKey];

  before(async () => {
    // Everything that daemon and QEMU could write lies in two directories: this one, and one in memory for secrets.
    const directory = await mkdtemp(join(tmpdir(), 'qshim-scan-'));
    [recorded, secrets] = [join(directory, 'recorded'), await mkdtemp('/dev/shm/qshim-scan-')];
    for (const name of ['recorded', 'tmp']) await mkdir(join(directory, name), { mode: 0o700 });
    const recorder = `${pathToFileURL(join(support, 'record-sockets-main.ts')).href}?directory=${encodeURIComponent(recorded)}`;
    rig = await ConfidentialRig.start({
      directory,
      config: { log_level: 'trace', secret_dir: secrets },
      nodeArguments: ['--import', recorder],
      environment: { TMPDIR: join(directory, 'tmp') },
    });
  });
  after(async () => {
    await rig[Symbol.asyncDispose]();
    await rmdir(secrets);
  });

  /** Where a key may never be: everything but the key files themselves and the way to the guest. */
  async function scan(key: Buffer): Promise<readonly Finding[]> {
    const needles = needlesOf(key);
    const { directory, keyDir, child, client } = rig.daemon;
    const { qemuPid } = await client.getSandbox('vm');
    const passOver = (path: string): boolean => path.startsWith(`${keyDir}/`) || path === join(recorded, 'qga.sock');
    const answers = Buffer.from(JSON.stringify([await client.listSandboxes(), await client.listVolumes()]));
    const answered = scanBytes('answers of the API', answers, needles);
    return [
      ...(answered === undefined ? [] : [answered]),
      ...(await scanFiles([directory, secrets], needles, passOver)),
      ...(await scanProcesses(needles)),
      ...(await scanUnnamed([child.pid ?? 0, qemuPid], needles)),
    ];
  }

  await it('are in no log at trace level, journal, state, process, QMP traffic, console or file', async () => {
    const { daemon } = rig;
    const keys = {
      host: { file: await daemon.keyFile('host', hostKey) },
      fresh: { file: await daemon.keyFile('fresh', newKey) },
      guest: { file: await daemon.keyFile('guest', guestKey) },
      wrong: { file: await daemon.keyFile('wrong', wrongKey) },
    };
    const hostPath = await daemon.rawFile('host.raw', 24 * MIB);
    const guestPath = await daemon.rawFile('guest.raw', 48 * MIB);
    const host = { rawFile: { path: hostPath }, mount: mountAt('/mnt/host'), ...hostLuks({ key: keys.host }) };
    const guest = {
      rawFile: { path: guestPath },
      mount: mountAt('/mnt/guest'),
      ...guestLuks2({ providedKey: keys.guest }),
    };
    await rig.attach('host', host);
    await rig.attach('guest', guest);
    const target = { attached: { sandboxId: 'vm', volumeId: 'host' } };
    const request = { target, key: keys.host, newKey: keys.fresh, iterationMs: 20 };
    await call((done) => daemon.client.volumes.addKey(request, done));
    await call((done) =>
      daemon.client.volumes.resize({ sandboxId: 'vm', volumeId: 'guest', sizeBytes: 64 * MIB }, done),
    );
    for (const key of all) assert.deepEqual(await scan(key), [], 'while attached');
    assert.deepEqual(await readdir(secrets), [], "the master keys' files are gone");
    await rig.detach('host');
    await rig.detach('guest');
    // What fails is where messages quote too much.
    await refusal(rig.attach('host', { ...host, ...hostLuks({ key: keys.wrong }) }));
    await refusal(rig.attach('guest', { ...guest, ...guestLuks2({ providedKey: keys.wrong }) }));
    assert.deepEqual(await rig.left(), NOTHING_LEFT);
    for (const key of all) assert.deepEqual(await scan(key), [], 'afterwards');

    const log = await daemon.log();
    assert.match(log, /"level":"trace".*"qmp command"/, 'trace is on');
    const qmp = await readFile(join(recorded, 'qmp.sock'), 'utf8');
    assert.match(qmp, /"qom-type":"secret".*"keyid"/, 'QMP is recorded, and a secret went over it');
    assert.match(qmp, /"file":"\/proc\/self\/fd\/\d+"/, "and the master key's way, which has no name in any directory");
    const vm = daemon.directoryOf('vm');
    const looked = [join(daemon.directory, 'qshimd.log'), join(daemon.stateDir, 'events.jsonl')];
    for (const path of [...looked, join(vm, 'state.json'), join(vm, 'console.log')]) {
      assert.ok((await stat(path)).size > 0, `${path} is there to be looked through`);
    }
    // The way to the guest: proof that the recording and the scan see a key where there is one.
    const channel = await readFile(join(recorded, 'qga.sock'));
    assert.notEqual(scanBytes('qga.sock', channel, needlesOf(guestKey)), undefined);
  });

  await it('a leak would be found: in a file, in an environment, and in what QMP carries', async () => {
    const leak = join(rig.daemon.stateDir, 'leak.txt');
    await writeFile(leak, `{"note":"x${guestKey.subarray(20, 40).toString('base64')}"}`);
    const child = spawn('/bin/sleep', ['60'], { env: { LEAK: hostKey.toString('hex') }, stdio: 'ignore' });
    const told = spawn('/bin/sh', ['-c', 'read -r end', newKey.toString('base64')], {
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    try {
      assert.deepEqual(
        (await scan(guestKey)).map(({ where }) => where),
        [leak],
      );
      assert.deepEqual(
        (await scan(hostKey)).map(({ where, form }) => [where, form]),
        [[`/proc/${child.pid ?? 0}/environ`, 'hex']],
      );
      assert.deepEqual(
        (await scan(newKey)).map(({ where }) => where),
        [`/proc/${told.pid ?? 0}/cmdline`],
      );
    } finally {
      child.kill('SIGKILL');
      told.kill('SIGKILL');
      await rm(leak);
    }
    // A key that is handed to QEMU as it is, not encrypted, is what the recording must show.
    await writeFile(join(recorded, 'qmp.sock'), JSON.stringify({ data: newKey.toString() }));
    assert.equal((await scan(newKey)).length, 1);
  });

  await it('a daemon that prints the keys that it fetches is found out', async () => {
    const leaking = pathToFileURL(join(support, 'leak-keys-main.ts')).href;
    await using daemon = await TestDaemon.start({ nodeArguments: ['--import', leaking] });
    const key = { file: await daemon.keyFile('key', hostKey) };
    const fresh = { file: await daemon.keyFile('fresh', newKey) };
    const target = { image: join(daemon.volumeDir, 'image.raw') };
    await makeImage([
      '--object',
      `secret,id=k,file=${key.file}`,
      '-o',
      'key-secret=k,iter-time=20',
      target.image,
      '4M',
    ]);
    await call((done) => daemon.client.volumes.addKey({ target, key, newKey: fresh, iterationMs: 20 }, done));
    for (const one of [hostKey, newKey]) {
      const found = await scanFiles([daemon.directory], needlesOf(one), (path) => path.startsWith(`${daemon.keyDir}/`));
      assert.deepEqual(
        found.map(({ where }) => where),
        [join(daemon.directory, 'qshimd.log')],
      );
    }
  });
});
