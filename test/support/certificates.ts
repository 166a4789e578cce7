import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';

/** A certificate and its key: paths of PEM files. */
export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

/** An authority of the test's own, by openssl. */
export class Authority {
  readonly #directory: string;
  readonly #name: string;

  private constructor(directory: string, name: string) {
    this.#directory = directory;
    this.#name = name;
  }

  static async make(directory: string, name: string): Promise<Authority> {
    const authority = new Authority(directory, name);
    const { cert, key } = authority.ca;
    await openssl([
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'],
      ...['-keyout', key, '-out', cert, '-subj', `/CN=${name}`],
    ]);
    return authority;
  }

  get ca(): Certificate {
    return this.#paths('ca');
  }

  /**
   * @param subject of the certificate: `/CN=a`
   * @param alternative names: `DNS:localhost,IP:127.0.0.1`
   */
  async issue(name: string, subject: string, alternative: string): Promise<Certificate> {
    const { cert, key } = this.#paths(name);
    const request = join(this.#directory, `${this.#name}-${name}.csr`);
    const extensions = join(this.#directory, `${this.#name}-${name}.ext`);
    await writeFile(extensions, alternative === '' ? 'basicConstraints=CA:FALSE\n' : `subjectAltName=${alternative}\n`);
    await openssl([
      ...['req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
      ...['-keyout', key, '-out', request, '-subj', subject],
    ]);
    await openssl([
      ...['x509', '-req', '-days', '2', '-in', request, '-out', cert, '-extfile', extensions, '-CAcreateserial'],
      ...['-CA', this.ca.cert, '-CAkey', this.ca.key],
    ]);
    return { cert, key };
  }

  #paths(name: string): Certificate {
    const base = join(this.#directory, `${this.#name}-${name}`);
    return { cert: `${base}-cert.pem`, key: `${base}-key.pem` };
  }
}

/** It writes keys with mode 0600 by itself. */
async function openssl(args: readonly string[]): Promise<void> {
  await execa('openssl', [...args]);
}
