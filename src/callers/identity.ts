/**
 * Who calls. Known from the connection, never from what the caller says: the kernel names the process at the other end
 * of a unix socket, TLS the certificate at the other end of a TCP connection.
 */
export type Identity =
  | {
      readonly kind: 'user';
      readonly uid: number;
      /** Its group, and those besides it. */
      readonly groups: readonly number[];
      /** Of the process that connected; it may have handed the connection on. */
      readonly pid: number;
    }
  /** The subject's common name first, then the alternative names. */
  | { readonly kind: 'certificate'; readonly names: readonly string[] }
  /** Whoever is behind the relay of containerd: containerd itself, for all its clients. */
  | { readonly kind: 'containerd' };

/** containerd, by the socket that serves nothing else. */
export const CONTAINERD: Identity = { kind: 'containerd' };

/** One word for people, the audit log and the quotas: "uid 1000", "certificate ci.example", "containerd". */
export function describeIdentity(identity: Identity): string {
  switch (identity.kind) {
    case 'user':
      return `uid ${identity.uid}`;
    case 'certificate':
      return `certificate ${identity.names[0] ?? ''}`;
    case 'containerd':
      return 'containerd';
  }
}
