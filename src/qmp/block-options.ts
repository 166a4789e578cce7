/**
 * The parts of QEMU's BlockdevOptions and BlockdevCreateOptions (qapi/block-core.json) that qshim sends.
 * The contract test holds every member against the real binary's query-qmp-schema.
 */

interface BlockdevCommon {
  /** At most 31 bytes in QEMU. */
  readonly 'node-name'?: string;
  readonly 'read-only'?: boolean;
  readonly 'auto-read-only'?: boolean;
  readonly 'force-share'?: boolean;
  readonly discard?: 'ignore' | 'unmap';
  readonly 'detect-zeroes'?: 'off' | 'on' | 'unmap';
  readonly cache?: { readonly direct?: boolean; readonly 'no-flush'?: boolean };
}

export type BlockdevAio = 'threads' | 'native' | 'io_uring';

interface BlockdevFileLike extends BlockdevCommon {
  readonly filename: string;
  readonly aio?: BlockdevAio;
  readonly locking?: 'auto' | 'on' | 'off';
}

export interface BlockdevFile extends BlockdevFileLike {
  readonly driver: 'file';
}

export interface BlockdevHostDevice extends BlockdevFileLike {
  readonly driver: 'host_device';
}

/** QAPI SocketAddress. */
export type SocketAddress =
  | { readonly type: 'unix'; readonly path: string }
  | { readonly type: 'inet'; readonly host: string; readonly port: string };

export interface BlockdevNbd extends BlockdevCommon {
  readonly driver: 'nbd';
  readonly server: SocketAddress;
  readonly export?: string;
  /** Id of a `tls-creds-x509` object; QEMU lets it be removed while it is in use. */
  readonly 'tls-creds'?: string;
  /** Whom the server's certificate must name; needed for a unix socket. */
  readonly 'tls-hostname'?: string;
  /** Seconds for which requests wait for a server that has gone, before they fail. */
  readonly 'reconnect-delay'?: number;
  /** Seconds for which opening tries to connect; with 0 it tries once, and waits for an answer without end. */
  readonly 'open-timeout'?: number;
}

/** A protocol node: where the bytes are. */
export type BlockdevProtocol = BlockdevFile | BlockdevHostDevice | BlockdevNbd;

interface BlockdevFormatCommon extends BlockdevCommon {
  /** A nested node, or the name of a node that exists. */
  readonly file: string | BlockdevProtocol;
}

export interface BlockdevRaw extends BlockdevFormatCommon {
  readonly driver: 'raw';
  /** Bytes. */
  readonly offset?: number;
  /** Bytes. */
  readonly size?: number;
}

export interface BlockdevQcow2 extends BlockdevFormatCommon {
  readonly driver: 'qcow2';
  /** A node name, or null for no backing file whatever the image's header says. */
  readonly backing?: string | null;
}

export interface BlockdevLuks extends BlockdevFormatCommon {
  readonly driver: 'luks';
  /** Id of a `secret` object. */
  readonly 'key-secret': string;
  /** Node name of a detached header (QEMU 9.0). */
  readonly header?: string;
}

export interface BlockdevThrottle extends BlockdevCommon {
  readonly driver: 'throttle';
  /** Id of a `throttle-group` object. */
  readonly 'throttle-group': string;
  /** The node whose requests are limited. */
  readonly file: string;
}

/** A format or filter node over a protocol node. */
export type BlockdevFormat = BlockdevRaw | BlockdevQcow2 | BlockdevLuks | BlockdevThrottle;

export type BlockdevOptions = BlockdevFormat | BlockdevProtocol;

export interface BlockdevCreateFile {
  readonly driver: 'file';
  readonly filename: string;
  /** Bytes. */
  readonly size: number;
  readonly preallocation?: 'off' | 'falloc' | 'full';
}

export interface BlockdevCreateQcow2 {
  readonly driver: 'qcow2';
  /** Node name of the file to format. */
  readonly file: string;
  /** Bytes, as the guest sees them. */
  readonly size: number;
  readonly 'backing-file'?: string;
  readonly 'backing-fmt'?: 'raw' | 'qcow2';
  /** Bytes. */
  readonly 'cluster-size'?: number;
}

export interface BlockdevCreateLuks {
  readonly driver: 'luks';
  /** Node name of the file to format. */
  readonly file: string;
  /** Bytes, as the guest sees them. */
  readonly size: number;
  readonly 'key-secret': string;
  /** Milliseconds that the key derivation is to take. */
  readonly 'iter-time'?: number;
  readonly 'cipher-alg'?: string;
  readonly 'cipher-mode'?: 'xts';
  readonly 'ivgen-alg'?: 'plain64';
  readonly 'hash-alg'?: string;
}

/**
 * BlockdevAmendOptions of `luks` (QAPI QCryptoBlockAmendOptionsLUKS). `active` fills a free slot with `new-secret`, and
 * takes the volume's key with `secret`; `inactive` empties every slot that `old-secret` opens.
 */
export type BlockdevAmendLuks =
  | {
      readonly driver: 'luks';
      readonly state: 'active';
      readonly 'new-secret': string;
      readonly secret: string;
      /** Milliseconds. */
      readonly 'iter-time'?: number;
    }
  | { readonly driver: 'luks'; readonly state: 'inactive'; readonly 'old-secret': string }
  | { readonly driver: 'luks'; readonly state: 'inactive'; readonly keyslot: number };

export type BlockdevCreateOptions = BlockdevCreateFile | BlockdevCreateQcow2 | BlockdevCreateLuks;
