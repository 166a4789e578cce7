import { createHash } from 'node:crypto';
import { cp, mkdir, mkdtemp, readFile, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { debsOfGuest } from '../../../scripts/guest/build.ts';

/** The name under which the image is imported. */
export const IMAGE = 'qshim.test/busybox:1';

/**
 * A busybox image as an OCI layout tar, made here without a registry: one layer with busybox-static (the guest's own
 * package), its applets, and the directories that containers expect. @returns the tar's path below `directory`
 */
export async function makeImage(directory: string): Promise<string> {
  await using work = await scratch();
  const tree = join(work.path, 'tree');
  for (const name of ['bin', 'dev', 'etc', 'proc', 'sys', 'tmp', 'root', 'run', 'data']) {
    await mkdir(join(tree, name), { recursive: true });
  }
  const busybox = join(tree, 'bin/busybox');
  await cp(await busyboxBinary(work.path), busybox);
  const { stdout } = await execa(busybox, ['--list']);
  for (const applet of stdout.split('\n')) {
    if (applet !== 'busybox') await symlink('busybox', join(tree, 'bin', applet));
  }
  await writeFile(join(tree, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
  await writeFile(join(tree, 'etc/group'), 'root:x:0:\n');
  const layerPath = join(work.path, 'layer.tar');
  await execa('tar', ['--owner=0', '--group=0', '--numeric-owner', '-C', tree, '-cf', layerPath, '.']);

  const layout = join(work.path, 'layout');
  await mkdir(join(layout, 'blobs/sha256'), { recursive: true });
  const blob = async (bytes: Buffer, mediaType: string): Promise<Descriptor> => {
    const hex = createHash('sha256').update(bytes).digest('hex');
    await writeFile(join(layout, 'blobs/sha256', hex), bytes);
    return { mediaType, digest: `sha256:${hex}`, size: bytes.length };
  };
  const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
  const layer = await blob(await readFile(layerPath), 'application/vnd.oci.image.layer.v1.tar');
  const config = await blob(
    json({
      architecture: 'amd64',
      os: 'linux',
      config: { Env: ['PATH=/bin'], Cmd: ['/bin/sh'] },
      rootfs: { type: 'layers', diff_ids: [layer.digest] },
    }),
    'application/vnd.oci.image.config.v1+json',
  );
  const manifest = await blob(json({ schemaVersion: 2, mediaType: MANIFEST, config, layers: [layer] }), MANIFEST);
  const annotations = { 'io.containerd.image.name': IMAGE, 'org.opencontainers.image.ref.name': '1' };
  const platform = { architecture: 'amd64', os: 'linux' };
  await writeFile(join(layout, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
  await writeFile(
    join(layout, 'index.json'),
    JSON.stringify({ schemaVersion: 2, manifests: [{ ...manifest, annotations, platform }] }),
  );
  const tar = join(directory, 'busybox.tar');
  await execa('tar', ['-C', layout, '-cf', tar, '.']);
  return tar;
}

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

async function busyboxBinary(work: string): Promise<string> {
  const debs = debsOfGuest();
  const deb = (await readdir(debs)).find((name) => name.startsWith('busybox-static_'));
  if (deb === undefined) throw new Error(`no busybox-static package in ${debs}: npm run guest`);
  await execa('dpkg-deb', ['-x', join(debs, deb), join(work, 'busybox')]);
  const candidates = ['bin/busybox', 'usr/bin/busybox'].map((path) => join(work, 'busybox', path));
  for (const path of candidates) {
    const found = await readFile(path).then(
      () => true,
      () => false,
    );
    if (found) return path;
  }
  throw new Error('the package busybox-static holds no busybox');
}

async function scratch(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'qshim-image-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}
