/**
 * Where a key is to be had, never the key: safe in gRPC, in the journal, in the log and in metrics. What a name or path
 * stands for is the operator's configuration; a caller cannot bring a command line or a URL.
 */
export type KeyReference =
  /** Absolute; below one of the configured directories. Used byte for byte. */
  | { readonly kind: 'file'; readonly path: string }
  /** A file of $CREDENTIALS_DIRECTORY (systemd.exec: LoadCredential=). Used byte for byte. */
  | { readonly kind: 'systemd-credential'; readonly name: string }
  /** A variable of the daemon's environment; off unless the configuration lists it. */
  | { readonly kind: 'environment'; readonly name: string }
  /** A command that the configuration knows under this name. */
  | { readonly kind: 'command'; readonly name: string }
  /** A JWE file, made by `clevis encrypt tang`, below one of the configured directories. */
  | { readonly kind: 'tang'; readonly path: string };

/** The reference as one word for people, as `file:/etc/keys/a`. */
export function describeReference(reference: KeyReference): string {
  return `${reference.kind}:${'path' in reference ? reference.path : reference.name}`;
}

/** References, and what they begin with, as people write them: `env:` and `credential:` are the command's words. */
export function canonicalReference(text: string): string {
  return text.replace(/^env:/, 'environment:').replace(/^credential:/, 'systemd-credential:');
}
