import { access, constants, readFile } from 'node:fs/promises';
import { once } from 'node:events';
import { connect } from 'node:net';
import { delimiter, join } from 'node:path';
import { parse as parseToml } from 'smol-toml';
import { errnoOf, messageOf } from '../base/errors.ts';
import { isDenied, type Finding } from './finding.ts';

/** What `qshim doctor --containerd` looks at: the setup of docs/containerd.md. */
export interface ContainerdOptions {
  /** containerd's own configuration file. */
  readonly configFile: string;
  /** The daemon's options. */
  readonly containerdSocket: string;
  readonly containerdAddress: string;
  readonly allowedRoots: readonly string[];
  readonly path: string;
}

const GUIDE = 'see docs/containerd.md';
const AS_ROOT = 'run as root, or as the user of the daemon';
const RUNTIME_TYPE = 'io.containerd.qshim.v2';
const RUNTIME_BINARY = 'containerd-shim-qshim-v2';
const CRI_PLUGIN = 'io.containerd.cri.v1.runtime';
const DISK_SNAPSHOTTERS = ['blockfile', 'devmapper'];
const CONNECT_MS = 2000;

/** Never rejects: what goes wrong is a finding. */
export async function examineContainerd(options: ContainerdOptions): Promise<Finding[]> {
  const { configFile, containerdSocket, containerdAddress, path } = options;
  if (containerdSocket === '') {
    const remedy = 'set containerd_socket in the configuration of qshimd, and start it again';
    return [{ check: 'containerd socket', status: 'failure', detail: 'qshimd does not serve containerd', remedy }];
  }
  return [
    await socketFinding('containerd socket', containerdSocket, 'start qshimd before containerd'),
    await socketFinding('containerd', containerdAddress, 'start containerd, or set containerd_address'),
    await binaryFinding(path),
    ...(await configFindings(configFile, options)),
  ];
}

async function socketFinding(check: string, path: string, remedy: string): Promise<Finding> {
  const socket = connect({ path });
  socket.setTimeout(CONNECT_MS, () => socket.destroy(new Error('no answer')));
  try {
    await once(socket, 'connect');
    return { check, status: 'ok', detail: `somebody listens on ${path}` };
  } catch (error) {
    if (isDenied(errnoOf(error))) {
      const detail = `${path} may not be opened by this user: ${messageOf(error)}`;
      return { check, status: 'failure', detail, remedy: AS_ROOT };
    }
    return { check, status: 'failure', detail: `nobody listens on ${path}: ${messageOf(error)}`, remedy };
  } finally {
    socket.destroy();
  }
}

async function binaryFinding(path: string): Promise<Finding> {
  const check = 'containerd runtime';
  for (const directory of path.split(delimiter).filter((each) => each !== '')) {
    const file = join(directory, RUNTIME_BINARY);
    try {
      await access(file, constants.X_OK);
      return { check, status: 'ok', detail: file };
    } catch {
      // The next directory may have it.
    }
  }
  const remedy = `link bin/${RUNTIME_BINARY} into a directory on containerd's PATH`;
  const detail = `${RUNTIME_BINARY} is not on PATH: a containerd that restarts loses its containers`;
  return { check, status: 'failure', detail, remedy };
}

async function configFindings(file: string, options: ContainerdOptions): Promise<Finding[]> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    const detail = `${file} cannot be read: ${messageOf(error)}`;
    const remedy = isDenied(errnoOf(error)) ? AS_ROOT : GUIDE;
    return [{ check: 'containerd config', status: 'failure', detail, remedy }];
  }
  return examineContainerdConfig(text, options);
}

/** containerd's configuration, as text, against the daemon's. Pure. */
export function examineContainerdConfig(
  text: string,
  { containerdSocket, allowedRoots }: Pick<ContainerdOptions, 'containerdSocket' | 'allowedRoots'>,
): Finding[] {
  let config: unknown;
  try {
    config = parseToml(text);
  } catch (error) {
    return [{ check: 'containerd config', status: 'failure', detail: messageOf(error), remedy: GUIDE }];
  }
  const plugins = entriesOf(at(config, 'proxy_plugins')).filter(([, plugin]) => at(plugin, 'type') === 'sandbox');
  const sandboxer = plugins.find(([, plugin]) => at(plugin, 'address') === containerdSocket)?.[0];
  const check = 'containerd config';
  if (sandboxer === undefined) {
    const detail = `no proxy plugin of type "sandbox" has the address ${containerdSocket}`;
    return [{ check, status: 'failure', detail, remedy: GUIDE }];
  }
  const runtimes = entriesOf(at(config, 'plugins', CRI_PLUGIN, 'containerd', 'runtimes'));
  const [name, runtime] = runtimes.find(([, each]) => at(each, 'sandboxer') === sandboxer) ?? [];
  if (name === undefined) {
    return [{ check, status: 'failure', detail: `no CRI runtime has sandboxer = "${sandboxer}"`, remedy: GUIDE }];
  }
  const detail = `runtime ${name}, sandboxer ${sandboxer}`;
  return [
    { check, status: 'ok', detail },
    typeFinding(name, runtime),
    snapshotterFinding(runtime),
    // Where the devices of others are, this file does not say.
    ...(at(runtime, 'snapshotter') === 'blockfile' ? [rootsFinding(config, allowedRoots)] : []),
  ];
}

function typeFinding(name: string, runtime: unknown): Finding {
  const check = 'containerd runtime type';
  const type = at(runtime, 'runtime_type');
  if (type === RUNTIME_TYPE) return { check, status: 'ok', detail: RUNTIME_TYPE };
  const remedy = `set runtime_type = "${RUNTIME_TYPE}"`;
  return { check, status: 'failure', detail: `runtime ${name} has ${JSON.stringify(type) || 'none'}`, remedy };
}

function snapshotterFinding(runtime: unknown): Finding {
  const check = 'containerd snapshotter';
  const snapshotter = at(runtime, 'snapshotter');
  if (typeof snapshotter === 'string' && DISK_SNAPSHOTTERS.includes(snapshotter)) {
    return { check, status: 'ok', detail: snapshotter };
  }
  const shown = typeof snapshotter === 'string' ? snapshotter : 'not set';
  const remedy = 'set snapshotter = "blockfile" for the runtime, and configure it';
  return { check, status: 'failure', detail: `${shown}: the guest needs disks, not directories`, remedy };
}

function rootsFinding(config: unknown, allowedRoots: readonly string[]): Finding {
  const check = 'containerd snapshots';
  const root = at(config, 'root');
  const snapshots = join(
    typeof root === 'string' ? root : '/var/lib/containerd',
    'io.containerd.snapshotter.v1.blockfile',
  );
  const own = at(config, 'plugins', 'io.containerd.snapshotter.v1.blockfile', 'root_path');
  const place = typeof own === 'string' && own !== '' ? own : snapshots;
  const allowed = allowedRoots.some(
    (each) => place === each || place.startsWith(each.endsWith('/') ? each : `${each}/`),
  );
  if (allowed) return { check, status: 'ok', detail: `${place} is below allowed_roots` };
  const detail = `${place} is not below allowed_roots: root file systems would be refused`;
  return { check, status: 'failure', detail, remedy: `add ${place} to allowed_roots of qshimd` };
}

function at(value: unknown, ...path: readonly string[]): unknown {
  let found = value;
  for (const name of path) {
    if (typeof found !== 'object' || found === null) return undefined;
    found = (found as Record<string, unknown>)[name];
  }
  return found;
}

function entriesOf(value: unknown): [string, unknown][] {
  return typeof value === 'object' && value !== null ? Object.entries(value) : [];
}
