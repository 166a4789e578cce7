import { chmod, mkdir, readFile, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf } from '../base/errors.ts';
import type { QmpClient } from '../qmp/client.ts';
import { MemoryFiles } from './memory-file.ts';
import type { HelperObject } from './model/objects.ts';

/** Below those of volumes (model/names.ts), and beside that of master keys (secret.ts). */
const CREDENTIALS_FDSET = 901;
/** What tls-creds-x509 of a client reads in its `dir` (crypto/tlscredsx509.c); all but the first may be missing. */
const FILES = ['ca-cert.pem', 'client-cert.pem', 'client-key.pem', 'ca-crl.pem'] as const;
/** QEMU, of whatever user, may find what it is told the name of. */
const DIRECTORY_MODE = 0o711;

/**
 * Adds credentials to a QEMU that does not see where they lie. In their place it finds links to files in memory, for as
 * long as the command lasts: QEMU reads them once, when the object is made.
 * @throws the system error when one cannot be read; as MemoryFiles.give; what QEMU refuses
 */
export async function addWithFiles(
  qmp: QmpClient,
  secretDir: string,
  { add, files: from }: Pick<HelperObject, 'add' | 'files'>,
): Promise<void> {
  const args = add.arguments;
  if (args['qom-type'] !== 'tls-creds-x509' || from === undefined) throw new Error('only credentials have files');
  await using undo = new AsyncDisposableStack();
  const memory = undo.use(new MemoryFiles(qmp, secretDir, CREDENTIALS_FDSET));
  await mkdir(args.dir);
  undo.defer(() => rm(args.dir, { recursive: true, force: true }));
  // Whatever the umask.
  await chmod(args.dir, DIRECTORY_MODE);
  for (const name of FILES) {
    const bytes = await readIfThere(join(from, name));
    if (bytes === undefined) continue;
    try {
      await symlink(await memory.give(bytes), join(args.dir, name));
    } finally {
      bytes.fill(0);
    }
  }
  await qmp.run(add.command, args);
}

async function readIfThere(path: string): Promise<Buffer | undefined> {
  return await readFile(path).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  });
}
