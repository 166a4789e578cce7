import assert from 'node:assert/strict';
import { once } from 'node:events';
import { chmod, copyFile, mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { connect as connectHttp2, type ClientHttp2Session } from 'node:http2';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { before, describe, it } from 'node:test';
import { Client, credentials, status } from '@grpc/grpc-js';
import { service as health } from 'grpc-health-check';
import { isRoot } from '../../scripts/lib/packages.ts';
import { loadApi } from '../../src/grpc/schema.ts';
import { Caller } from '../support/caller.ts';
import { Authority, type Certificate } from '../support/certificates.ts';
import { TestDaemon, call, type DaemonOptions } from '../support/daemon.ts';
import { decodeRefusal } from '../support/errors.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import { until } from '../support/until.ts';

/** Who may do what, as callers see it: the real daemon over a fake QEMU, with callers of other users. */

const GROUP = 4321;
const A = { uid: 2001, gid: GROUP };
const B = { uid: 2002, gid: GROUP };
/** In no group that may connect. */
const STRANGER = { uid: 2003, gid: 2003 };
const QUICKLY = { kvm_probe_timeout_ms: 50, reload_check_ms: 50 };

const policyText = (volumes: string): string => `
[[rule]]
name = "root"
users = [0]
roles = ["admin"]

[[rule]]
name = "tenant a"
users = [${A.uid}]
roles = ["volume", "exec"]
sandboxes = { tenant = "a" }
roots = ["${volumes}/a"]
keys = ["file:/k/a"]

[[rule]]
name = "maker"
users = [${B.uid}]
roles = ["admin"]
sandboxes = { tenant = "b" }
`;

/** A directory for policy and certificates; the daemon has one of its own. */
async function directoryOf(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'qshim-c-'));
  await chmod(path, 0o755);
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

const skip = isRoot() ? false : 'callers of other users need root';

describe('callers of other users', { skip, timeout: 180_000 }, () => {
  let shared: { rig: FakeVmRig; stack: AsyncDisposableStack; policy: string; volumes: string };

  before(async () => {
    const stack = new AsyncDisposableStack();
    const { path } = stack.use(await directoryOf());
    const policy = join(path, 'policy.toml');
    const volumes = join(path, 'volumes');
    for (const name of ['a', 'b']) await mkdir(join(volumes, name), { recursive: true });
    await writeFile(join(volumes, 'b/disk'), Buffer.alloc(65_536));
    await symlink(join(volumes, 'b/disk'), join(volumes, 'a/link'));
    await writeFile(policy, policyText(volumes));
    const settings = { ...QUICKLY, socket_group: String(GROUP), policy, allowed_roots: volumes };
    const rig = stack.use(await FakeVmRig.start(settings));
    shared = { rig, stack, policy, volumes };
    await make('one', 'a');
    await make('two', 'b');
  });

  const make = async (sandboxId: string, tenant: string): Promise<void> => {
    const { rig } = shared;
    const spec = { accelerator: 'ACCELERATOR_TCG', labels: { tenant } } as const;
    await Promise.all([rig.client.createSandbox({ sandboxId, spec }), rig.qemu.vm(sandboxId)]);
  };

  it('the socket is open to the group, and to nobody else', async () => {
    const { daemon } = shared.rig;
    const socket = await stat(daemon.socket);
    assert.deepEqual([socket.mode & 0o777, socket.gid], [0o660, GROUP]);
    const directory = await stat(dirname(daemon.socket));
    assert.deepEqual([directory.mode & 0o777, directory.gid], [0o710, GROUP]);
    await using stranger = await Caller.start(daemon.socket, STRANGER);
    assert.equal(await stranger.reason('Sandboxes', 'List'), String(status.UNAVAILABLE));
  });

  it('a caller sees and does what its rules give, and hears which rule it missed', async () => {
    const { rig, volumes } = shared;
    await using a = await Caller.start(rig.daemon.socket, A);
    const listed = await a.call('Sandboxes', 'List');
    assert.deepEqual(idsOf(listed.value?.['sandboxes']), ['one']);
    const mine = { sandboxId: 'one', volumeId: 'v', spec: rawAt(`${volumes}/a/disk`) };
    const elsewhere = { volumeId: 'v', spec: rawAt(`${volumes}/b/disk`) };
    const keys = { key: { file: '/k/a' }, newKey: { file: '/k/b' } };
    for (const [service, method, request, reason] of [
      ['Sandboxes', 'Get', { sandboxId: 'one' }, 'OK'],
      ['Sandboxes', 'Get', { sandboxId: 'two' }, 'SANDBOX_NOT_GRANTED'],
      ['Sandboxes', 'Get', { sandboxId: 'none' }, 'SANDBOX_NOT_FOUND'],
      ['Sandboxes', 'Stop', { sandboxId: 'one' }, 'ROLE_MISSING'],
      ['Sandboxes', 'Delete', { sandboxId: 'one' }, 'ROLE_MISSING'],
      ['Sandboxes', 'Create', { sandboxId: 'new', spec: { labels: { tenant: 'a' } } }, 'ROLE_MISSING'],
      ['Sandboxes', 'Exec', { sandboxId: 'two', path: 'true' }, 'SANDBOX_NOT_GRANTED'],
      ['Volumes', 'List', { sandboxId: 'one' }, 'OK'],
      ['Volumes', 'List', { sandboxId: 'two' }, 'SANDBOX_NOT_GRANTED'],
      ['Volumes', 'Attach', mine, 'SOURCE_NOT_FOUND'],
      ['Volumes', 'Attach', { ...mine, sandboxId: 'two' }, 'SANDBOX_NOT_GRANTED'],
      ['Volumes', 'Attach', { sandboxId: 'one', ...elsewhere }, 'ROOT_NOT_GRANTED'],
      // What lies below the root by its name only.
      ['Volumes', 'Attach', { ...mine, spec: rawAt(`${volumes}/a/link`) }, 'OUTSIDE_ALLOWED_ROOTS'],
      ['Volumes', 'ListKeySlots', { target: { image: `${volumes}/a/link` } }, 'OUTSIDE_ALLOWED_ROOTS'],
      ['Volumes', 'Plan', { sandboxId: 'one', volumes: [mine, elsewhere] }, 'ROOT_NOT_GRANTED'],
      ['Volumes', 'AttachMany', { sandboxId: 'one', volumes: [mine, elsewhere] }, 'ROOT_NOT_GRANTED'],
      ['Volumes', 'ListKeySlots', { target: { image: `${volumes}/b/disk` } }, 'ROOT_NOT_GRANTED'],
      ['Volumes', 'AddKey', { target: { image: `${volumes}/a/x` }, ...keys }, 'KEY_NOT_GRANTED'],
    ] as const) {
      assert.equal(await a.reason(service, method, request), reason, `${service}.${method} ${JSON.stringify(request)}`);
    }
    const { refused } = await a.call('Sandboxes', 'Get', { sandboxId: 'two' });
    assert.deepEqual([refused?.code, refused?.metadata['rule']], ['PERMISSION_DENIED', 'tenant a']);
    assert.match(refused?.message ?? '', /rule "tenant a": .* to those with tenant=a$/);
  });

  it('a maker makes sandboxes with its own labels only', async () => {
    const { rig } = shared;
    await using b = await Caller.start(rig.daemon.socket, B);
    for (const labels of [{}, { tenant: 'a' }, { constructor: 'b' }]) {
      const reason = await b.reason('Sandboxes', 'Create', { sandboxId: 'three', spec: { labels } });
      assert.equal(reason, 'SANDBOX_NOT_GRANTED', JSON.stringify(labels));
    }
    const spec = { accelerator: 'ACCELERATOR_TCG', labels: { tenant: 'b', more: 'x' } };
    const create = b.reason('Sandboxes', 'Create', { sandboxId: 'three', spec });
    assert.deepEqual((await Promise.all([create, rig.qemu.vm('three')]))[0], 'OK');
    assert.equal(await b.reason('Sandboxes', 'Delete', { sandboxId: 'one', force: true }), 'SANDBOX_NOT_GRANTED');
    assert.equal(await b.reason('Sandboxes', 'Delete', { sandboxId: 'three', force: true }), 'OK');
    assert.equal(await b.reason('Sandboxes', 'Delete', { sandboxId: 'three', force: true }), 'OK', 'a repeat');
  });

  it('watchers hear of what their caller may read, also when its sandbox goes', async () => {
    const { rig } = shared;
    await using b = await Caller.start(rig.daemon.socket, B);
    const streams = [
      b.stream('Events', 'Watch', { allRetained: true }),
      b.stream('Sandboxes', 'Watch'),
      b.stream('Volumes', 'Watch'),
    ] as const;
    await until('all are open', () => (streams.every(({ isOpen }) => isOpen) ? true : undefined));
    for (const tenant of ['a', 'b', 'a']) {
      await make('four', tenant);
      await rig.client.deleteSandbox('four');
    }
    const [events, sandboxes, volumes] = streams;
    const of = (wanted: string) =>
      events.messages.filter(({ type, sandboxId }) => type === wanted && sandboxId === 'four').length;
    await until('the end', () => of('sandbox.deleted') || undefined);
    assert.deepEqual([of('sandbox.running'), of('sandbox.deleted')], [1, 1], 'of three sandboxes of one name');
    assert.ok(!events.messages.some(({ sandboxId }) => sandboxId === 'one'));
    const shown = sandboxes.messages.map(({ sandbox }) => Reflect.get(sandbox as object, 'sandboxId') as unknown);
    assert.deepEqual([...new Set(shown)], ['two', 'four']);
    assert.deepEqual(volumes.messages, []);
  });

  it('another policy holds at once, also for open streams; a broken one changes nothing, and health says so', async () => {
    const { rig, policy } = shared;
    const { socket } = rig.daemon;
    const healthIs = (wanted: string) =>
      until(wanted, async () => ((await healthOf(socket, 'qshim.policy')) === wanted ? true : undefined));
    await using a = await Caller.start(socket, A);
    const watching = a.stream('Events', 'Watch');
    await until('it is open', () => (watching.isOpen ? true : undefined));
    const text = await readFile(policy, 'utf8');
    await writeFile(policy, text.replace(`[${A.uid}]`, '[9999]'));
    const refused = await until('the stream is ended', () => watching.refused);
    assert.deepEqual([refused.code, refused.reason], ['PERMISSION_DENIED', 'CALLER_NOT_NAMED']);
    assert.equal(await a.reason('Sandboxes', 'List'), 'CALLER_NOT_NAMED');
    assert.equal(await healthOf(socket, 'qshim.policy'), 'SERVING');
    await writeFile(policy, 'rule = [');
    await healthIs('NOT_SERVING');
    assert.equal(await a.reason('Sandboxes', 'List'), 'CALLER_NOT_NAMED');
    assert.equal((await rig.client.listSandboxes()).length, 2, 'root is what it was');
    assert.ok((await rig.daemon.log()).includes('files changed and cannot be used'));
    await writeFile(policy, text);
    await until('the first one', async () => ((await a.reason('Sandboxes', 'List')) === 'OK' ? true : undefined));
    await healthIs('SERVING');
  });

  it('every call that changes something is one line of the audit log: who, what, how it ended', async () => {
    const { rig, volumes } = shared;
    await using a = await Caller.start(rig.daemon.socket, A);
    const path = join(rig.daemon.stateDir, '.audit.jsonl');
    const source = `${volumes}/a/disk`;
    const spec = { ...rawAt(source), encryption: { hostLuks: { key: { file: '/k/a' } } } };
    assert.equal(
      await a.reason('Volumes', 'Attach', { sandboxId: 'one', volumeId: 'audited', spec }),
      'SOURCE_NOT_FOUND',
    );
    await a.call('Sandboxes', 'List');
    const line = await until('its line', async () =>
      (await readFile(path, 'utf8')).split('\n').find((one) => one.includes('"audited"')),
    );
    const { time: _time, durationMs, ...rest } = JSON.parse(line) as Record<string, unknown>;
    assert.equal(typeof durationMs, 'number');
    assert.deepEqual(rest, {
      ...{ caller: `uid ${A.uid}`, pid: a.pid, method: 'Volumes.Attach', sandboxId: 'one', volumeIds: ['audited'] },
      ...{ keys: ['file:/k/a'], sources: [source], rules: ['tenant a'] },
      ...{ outcome: 'FAILED_PRECONDITION', reason: 'SOURCE_NOT_FOUND' },
    });
    assert.equal((await stat(path)).mode & 0o777, 0o600);
    assert.doesNotMatch(await readFile(path, 'utf8'), /"Sandboxes\.List".*"OK"/, 'a look is no change');
  });

  it('end of the daemon that they share', async () => {
    await shared.stack.disposeAsync();
  });
});

describe('callers over TLS', { skip, timeout: 180_000 }, () => {
  it('are known by their certificates; files are exchanged while it runs; a key that others may read is none', async () => {
    await using directory = await directoryOf();
    const at = (name: string): string => join(directory.path, name);
    const authority = await Authority.make(directory.path, 'ours');
    const other = await Authority.make(directory.path, 'other');
    const server = await authority.issue('server', '/CN=qshim', 'DNS:localhost,IP:127.0.0.1');
    const ci = await authority.issue('ci', '/CN=ci.example', '');
    const byAlternative = await authority.issue('alternative', '/CN=somebody', 'URI:spiffe://x/ci');
    const stranger = await authority.issue('stranger', '/CN=stranger', '');
    const forged = await other.issue('forged', '/CN=ci.example', '');
    await copyFile(server.cert, at('cert.pem'));
    await copyFile(server.key, at('key.pem'));
    await copyFile(authority.ca.cert, at('ca.pem'));
    const rules = [
      'users = [0]\nroles = ["admin"]',
      'certificates = ["ci.example", "spiffe://x/ci"]\nroles = ["read"]',
    ];
    await writeFile(at('policy.toml'), rules.map((rule) => `[[rule]]\n${rule}\n`).join(''));
    const config = {
      ...{ ...QUICKLY, policy: at('policy.toml'), tls_listen: '127.0.0.1:0' },
      ...{ tls_cert: at('cert.pem'), tls_key: at('key.pem'), tls_client_ca: at('ca.pem') },
    };
    await using daemon = await TestDaemon.start({ config });
    const port = /"address":\{"address":"127\.0\.0\.1",.*?"port":(\d+)/.exec(await daemon.log())?.[1];
    assert.ok(port);
    const list = (certificate: Certificate | undefined): Promise<string> => asCaller(port, authority, certificate);
    assert.equal(await list(ci), 'ROLE_MISSING', 'it may list, and not delete');
    assert.equal(await list(byAlternative), 'ROLE_MISSING');
    assert.equal(await list(stranger), 'CALLER_NOT_NAMED');
    for (const nobody of [forged, undefined]) assert.equal(await list(nobody), 'UNAVAILABLE');
    // Whoever can reach the port, without TLS.
    const plain = connect(Number(port), '127.0.0.1').on('error', () => undefined);
    plain.resume().write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
    await new Promise((resolve) => plain.once('close', resolve));

    // The other authority's callers from now on, by other files of the same names.
    await copyFile(other.ca.cert, at('ca.pem'));
    await until('the forged one is taken', async () => ((await list(forged)) === 'ROLE_MISSING' ? true : undefined));
    assert.equal(await list(ci), 'UNAVAILABLE');
    await chmod(at('key.pem'), 0o644);
    await until('health says so', async () =>
      (await healthOf(daemon.socket, 'qshim.tls')) === 'NOT_SERVING' ? true : undefined,
    );
    assert.equal(await list(forged), 'ROLE_MISSING', 'what was in force stays');
    const refused = await failedStart({ config });
    assert.match(refused, /tls_listen cannot be served: .*key\.pem is open to others \(mode 644\)/);
  });

  it('nobody is let in beside the user of the daemon without a policy, and none that is broken', async () => {
    for (const config of [{ tls_listen: '127.0.0.1:0' }, { socket_group: '0' }]) {
      assert.match(await failedStart({ config }), /needs policy/);
    }
    await using directory = await directoryOf();
    const policy = join(directory.path, 'policy.toml');
    await writeFile(policy, 'rules = []');
    assert.match(await failedStart({ config: { policy } }), /the policy file .* cannot be used/);
  });
});

describe('what one caller may take', { timeout: 180_000 }, () => {
  it('connections: those too many are turned away, and the others stay', async () => {
    await using daemon = await TestDaemon.start({ config: { ...QUICKLY, caller_connections_max: 4 } });
    // The test's own client has at least one.
    const sockets = Array.from({ length: 8 }, () => connect(daemon.socket));
    for (const socket of sockets) socket.on('error', () => undefined).resume();
    await until('five are turned away', () => (sockets.filter(({ closed }) => closed).length >= 5 ? true : undefined));
    assert.deepEqual(await daemon.client.listSandboxes(), []);
    assert.ok(sockets.some(({ closed }) => !closed));
    for (const socket of sockets) socket.destroy();
  });

  it('connections: idle ones end', async () => {
    await using daemon = await TestDaemon.start({ config: { ...QUICKLY, connection_idle_ms: 300 } });
    const silent = connect(daemon.socket).on('error', () => undefined);
    silent.resume();
    await new Promise((resolve) => silent.once('close', resolve));
    assert.deepEqual(await daemon.client.listSandboxes(), [], 'whoever calls again is connected again');
  });

  it('unfinished messages: they end with their time, or when they hold too much', async () => {
    await using daemon = await TestDaemon.start({
      config: { ...QUICKLY, request_timeout_ms: 1000, unfinished_bytes_max: 1_048_576 },
    });
    const { session, begin } = await rawSession(daemon.socket);
    // Of a message of 200 KiB all but the last byte; only some of them fit into half of a MiB.
    const ends = await Promise.all(Array.from({ length: 8 }, () => begin(200 * 1024, 200 * 1024 - 1)));
    assert.ok(
      ends.every((code) => code === ENHANCE_YOUR_CALM),
      ends.join(', '),
    );
    assert.equal(await begin(0, -1), ENHANCE_YOUR_CALM, 'no byte of a message at all');
    session.destroy();
    assert.deepEqual(await daemon.client.listSandboxes(), []);
  });

  it('streams of one caller leave those of others', { skip }, async () => {
    await using directory = await directoryOf();
    const policy = join(directory.path, 'policy.toml');
    await writeFile(policy, `[[rule]]\nusers = [0, ${A.uid}]\nroles = ["admin"]\n`);
    await using daemon = await TestDaemon.start({
      config: { ...QUICKLY, policy, socket_group: String(GROUP), caller_watchers_max: 2 },
    });
    await using a = await Caller.start(daemon.socket, A);
    const held = [a.stream('Events', 'Watch'), a.stream('Sandboxes', 'Watch')];
    await until('both are open', () => (held.every(({ isOpen }) => isOpen) ? true : undefined));
    const third = a.stream('Events', 'Watch');
    const refused = await until('the third', () => third.refused);
    assert.deepEqual([refused.reason, refused.metadata['option']], ['TOO_MANY_CALLS', 'caller_watchers_max']);
    const others = daemon.client.events.watch({});
    others.on('error', () => undefined);
    await once(others, 'metadata');
    others.cancel();
  });

  it('filters: as many labels as a sandbox may have, and no more', async () => {
    await using daemon = await TestDaemon.start({ config: QUICKLY });
    const { sandboxes, volumes } = daemon.client;
    const refused = async (work: Promise<unknown>): Promise<string> =>
      decodeRefusal(await work.catch((problem: unknown) => problem)).reason;
    const labels = Object.fromEntries(Array.from({ length: 65 }, (_, index) => [`l${index}`, 'x']));
    for (const filter of [labels, { a: 'x'.repeat(257) }]) {
      assert.equal(await refused(call((done) => sandboxes.list({ labels: filter }, done))), 'INVALID_FIELD');
    }
    const states = Array.from({ length: 17 }, () => 'VOLUME_STATE_ATTACHED' as const);
    assert.equal(await refused(call((done) => volumes.list({ states }, done))), 'INVALID_FIELD');
  });
});

describe("containerd's socket", { timeout: 120_000 }, () => {
  it("serves containerd's services, and nothing of the API; the API serves none of containerd's", async () => {
    await using directory = await directoryOf();
    const socket = join(directory.path, 'run/c.sock');
    await using daemon = await TestDaemon.start({
      config: { ...QUICKLY, containerd_socket: socket, containerd_address: join(directory.path, 'containerd.sock') },
    });
    const platform = '/containerd.services.sandbox.v1.Controller/Platform';
    const served = async (at: string, path: string): Promise<status> => {
      const client = new Client(`unix:${at}`, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
      const asIs = (bytes: Buffer): Buffer => bytes;
      try {
        await call((done) => client.makeUnaryRequest(path, asIs, asIs, Buffer.alloc(0), done));
        return status.OK;
      } catch (error) {
        return (error as { code: status }).code;
      } finally {
        client.close();
      }
    };
    for (const at of [socket, join(daemon.stateDir, '.containerd/daemon.sock')]) {
      assert.equal(await served(at, platform), status.INVALID_ARGUMENT);
      assert.equal(await served(at, '/qshim.v1.Sandboxes/List'), status.UNIMPLEMENTED);
      assert.equal(await served(at, '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo'), status.UNIMPLEMENTED);
    }
    assert.equal(await served(daemon.socket, platform), status.UNIMPLEMENTED);
    assert.equal(await served(daemon.socket, '/qshim.v1.Sandboxes/List'), status.OK);
  });
});

/** NGHTTP2_ENHANCE_YOUR_CALM. */
const ENHANCE_YOUR_CALM = 11;

function rawAt(path: string): object {
  return { rawFile: { path } };
}

function idsOf(list: unknown): readonly unknown[] {
  return (list as readonly object[]).map((one) => Reflect.get(one, 'sandboxId') as unknown);
}

async function healthOf(socket: string, service: string): Promise<string> {
  const { Check: check } = health;
  assert.ok(check);
  const client = new Client(`unix:${socket}`, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
  try {
    const answer = await call<object>((done) =>
      client.makeUnaryRequest(check.path, check.requestSerialize, check.responseDeserialize, { service }, done),
    );
    return String(Reflect.get(answer, 'status'));
  } finally {
    client.close();
  }
}

/** Lists, then deletes: OK, or the reason why not. */
async function asCaller(port: string, { ca }: Authority, certificate: Certificate | undefined): Promise<string> {
  const own = certificate && { key: await readFile(certificate.key), cert: await readFile(certificate.cert) };
  const tls = credentials.createSsl(await readFile(ca.cert), own?.key ?? null, own?.cert ?? null);
  const client = new (loadApi().qshim.v1.Sandboxes)(`127.0.0.1:${port}`, tls, { 'grpc.use_local_subchannel_pool': 1 });
  try {
    await call((done) => client.list({}, { deadline: Date.now() + 10_000 }, done));
    await call((done) => client.delete({ sandboxId: 'x' }, done));
    return 'OK';
  } catch (error) {
    return (error as { code: status }).code === status.UNAVAILABLE ? 'UNAVAILABLE' : decodeRefusal(error).reason;
  } finally {
    client.close();
  }
}

/** What a daemon says that must not start. */
async function failedStart(options: DaemonOptions): Promise<string> {
  const daemon = await TestDaemon.start(options).catch((error: unknown) => String(error));
  if (typeof daemon === 'string') return daemon;
  await daemon[Symbol.asyncDispose]();
  assert.fail('the daemon has started');
}

/** HTTP/2 by hand: calls whose message does not come whole. Each gives the code with which its stream was ended. */
async function rawSession(socket: string): Promise<{
  session: ClientHttp2Session;
  begin: (length: number, come: number) => Promise<number>;
}> {
  const session = connectHttp2('http://localhost', { createConnection: () => connect(socket) });
  session.on('error', () => undefined);
  await once(session, 'connect');
  const begin = async (length: number, come: number): Promise<number> => {
    const stream = session.request(
      {
        ...{ ':method': 'POST', ':path': '/qshim.v1.Sandboxes/List', te: 'trailers' },
        'content-type': 'application/grpc',
      },
      { endStream: false },
    );
    stream.on('error', () => undefined);
    stream.resume();
    if (come >= 0) {
      const bytes = Buffer.alloc(5 + come);
      bytes.writeUInt32BE(length, 1);
      stream.write(bytes);
    }
    await new Promise((resolve) => stream.once('close', resolve));
    return stream.rstCode;
  };
  return { session, begin };
}
