import type { BlockdevProtocol } from '../qmp/block-options.ts';
import type { DiskSpec } from './model/disk.ts';
import type { HostLuksSpec } from './model/encryption.ts';
import { helperName, type NameOf, type QemuNames } from './model/names.ts';
import { commonNode } from './model/nodes.ts';
import { helperObject, jobObject, nodeObject, type HelperObject, type QemuObject } from './model/objects.ts';

/** Names of the two secrets of a `host_luks` volume: the key, and what the key is encrypted with on its way to QEMU. */
export function secretNames(of: NameOf): {
  readonly keySecret: string;
  readonly masterSecret: string;
} {
  return { keySecret: helperName(of, 'key'), masterSecret: helperName(of, 'master') };
}

/**
 * What a `host_luks` volume is in QEMU instead of a format node: a protocol node of its own, an image if there is none
 * yet, and the luks node that opens it. The secrets go as soon as the image is open: QEMU needs neither any more.
 * @param creates an image is to be made, if the source turns out to be empty
 */
export function hostLuksObjects(
  disk: DiskSpec,
  encryption: HostLuksSpec,
  names: QemuNames,
  protocol: BlockdevProtocol,
  creates: boolean,
): readonly QemuObject[] {
  const { keySecret, masterSecret } = secretNames(names);
  const secret = (id: string, keyid?: string): HelperObject =>
    helperObject(
      'add-secret',
      { 'qom-type': 'secret', id, ...(keyid === undefined ? {} : { keyid }) },
      { until: names.root },
    );
  const create = jobObject('create-image', 'luks-create', {
    'job-id': names.job,
    options: {
      driver: 'luks',
      file: names.protocol,
      size: encryption.sizeBytes,
      'key-secret': keySecret,
      'cipher-alg': encryption.cipher,
      'cipher-mode': 'xts',
      'ivgen-alg': 'plain64',
      'hash-alg': encryption.hash,
      'iter-time': encryption.iterationMs,
    },
  });
  return [
    nodeObject('add-file-node', protocol),
    secret(masterSecret),
    secret(keySecret, masterSecret),
    ...(creates ? [create] : []),
    nodeObject(
      'add-luks-node',
      {
        ...commonNode(disk),
        driver: 'luks',
        'node-name': names.root,
        'detect-zeroes': disk.detectZeroes,
        file: names.protocol,
        'key-secret': keySecret,
      },
      { phase: 'luks-open' },
    ),
  ];
}
