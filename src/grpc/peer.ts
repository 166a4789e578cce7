import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { checked, descriptorOf, libc } from '../base/native.ts';
import type { Identity } from '../callers/identity.ts';

/** asm-generic/socket.h: the same on every architecture that Node.js runs on under Linux. */
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
/** Linux 4.13. */
const SO_PEERGROUPS = 59;
const UCRED_BYTES = 12;
const GID_BYTES = 4;
/** Of one process: NGROUPS_MAX. */
const GROUPS_MAX = 65_536;
const GROUPS_USUAL = 64;

/** value: an out buffer of `length[0]` bytes, which becomes what was needed. */
const getsockopt: (fd: number, level: number, name: number, value: Buffer, length: [number]) => number = libc.func(
  'int getsockopt(int fd, int level, int name, _Out_ uint8_t *value, _Inout_ uint32_t *length)',
);

/**
 * The user at the other end of a unix socket, as it was when it connected (unix(7), SO_PEERCRED: pid, uid, gid;
 * SO_PEERGROUPS: its other groups).
 * @throws Error when the kernel does not say: such a connection is nobody's
 */
export function userAt(socket: Socket): Identity {
  const fd = descriptorOf(socket);
  if (fd === undefined) throw new Error('the connection has no descriptor any more');
  const credentials = Buffer.alloc(UCRED_BYTES);
  checked('getsockopt', getsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials, [UCRED_BYTES]));
  const groups = [credentials.readUInt32LE(8), ...otherGroups(fd)];
  return { kind: 'user', pid: credentials.readInt32LE(0), uid: credentials.readUInt32LE(4), groups };
}

/** Without them a rule for a group does not fit: that is denied, never granted. */
function otherGroups(fd: number): readonly number[] {
  for (const groupsMax of [GROUPS_USUAL, GROUPS_MAX]) {
    const list = Buffer.alloc(groupsMax * GID_BYTES);
    const length: [number] = [list.length];
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, list, length) !== 0) continue;
    return Array.from({ length: length[0] / GID_BYTES }, (_, index) => list.readUInt32LE(index * GID_BYTES));
  }
  return [];
}

/**
 * The certificate at the other end of a TLS connection that was checked against the CA: its common name, and its
 * alternative names (RFC 5280, 4.2.1.6) of the kinds DNS, URI and email.
 * @throws Error when it has no name
 */
export function certificateAt(socket: TLSSocket): Identity {
  const { subject, subjectaltname } = socket.getPeerCertificate();
  const common: unknown = Reflect.get(subject, 'CN');
  const names = [common, ...alternativeNames(subjectaltname ?? '')].filter(
    (name): name is string => typeof name === 'string' && name !== '',
  );
  if (names.length === 0) throw new Error('the certificate has no name');
  return { kind: 'certificate', names: [...new Set(names)] };
}

/**
 * Of Node's text `DNS:a, URI:b`. Since CVE-2021-44532 Node quotes, as JSON, every name that has a comma or a quote in
 * it; such names are left out here: no rule can be meant for them.
 */
function alternativeNames(text: string): readonly string[] {
  if (text.includes('"')) return [];
  return text.split(', ').flatMap((entry) => /^(?:DNS|URI|email):(.+)$/.exec(entry)?.slice(1) ?? []);
}
