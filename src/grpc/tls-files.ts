import { createSecureContext } from 'node:tls';
import { messageOf, ShimError } from '../base/errors.ts';
import { readTrustedFile } from '../callers/trusted-file.ts';
import type { Config } from '../config.ts';
import type { TlsFiles } from './door.ts';

type Paths = Pick<Config, 'tls_cert' | 'tls_key' | 'tls_client_ca'>;

/** The files that the TLS door is made of. */
export function tlsPaths(config: Paths): readonly string[] {
  return [config.tls_cert, config.tls_key, config.tls_client_ca];
}

/**
 * Reads them, and sees that they fit together.
 * @throws ShimError FAILED_PRECONDITION / TLS_NOT_USABLE; a key that others may read is none
 */
export async function readTls(config: Paths): Promise<TlsFiles> {
  const { tls_cert, tls_key, tls_client_ca } = config;
  try {
    const files = {
      cert: await readTrustedFile(tls_cert, 'to writers'),
      key: await readTrustedFile(tls_key, 'to readers'),
      ca: await readTrustedFile(tls_client_ca, 'to writers'),
    };
    createSecureContext(files);
    if (!files.ca.includes('-----BEGIN CERTIFICATE-----')) throw new Error(`${tls_client_ca} has no certificate`);
    return files;
  } catch (error) {
    throw new ShimError('FAILED_PRECONDITION', `tls_listen cannot be served: ${messageOf(error)}`, {
      reason: 'TLS_NOT_USABLE',
      cause: error,
    });
  }
}
