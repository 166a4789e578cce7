/**
 * Checks of `qshim doctor` on what this process's user may not use, to be run as such a user. Prints the findings as
 * JSON. The argument is a directory with `closed/`, `image`, `program` and `device`.
 */
import { join } from 'node:path';
import { checkFolderLock, checkPrivateFolder, checkReadableFile } from '../../src/doctor/folder-checks.ts';
import { checkKvm, checkQemu } from '../../src/doctor/qemu-checks.ts';

const [directory = ''] = process.argv.slice(2);
const at = (name: string): string => join(directory, name);
const { findings } = await checkQemu(at('program'));
process.stdout.write(
  JSON.stringify([
    await checkFolderLock(at('closed')),
    await checkFolderLock(at('closed/below/it')),
    await checkPrivateFolder('state folder', at('closed'), 'state_dir'),
    await checkPrivateFolder('state folder', at('closed/below'), 'state_dir'),
    await checkReadableFile('guest kernel', at('image'), 'make it'),
    ...findings,
    await checkKvm({ qemuBinary: at('program'), kvmProbeTimeoutMs: 1000, device: at('device') }),
  ]),
);
