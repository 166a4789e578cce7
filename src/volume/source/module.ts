import type { FileHandle } from 'node:fs/promises';
import type { z } from 'zod';
import type { Config } from '../../config.ts';
import type { Keep } from '../../files/serve.ts';
import type { BlockdevProtocol } from '../../qmp/block-options.ts';
import type { BlockNodeInfo } from '../../qmp/protocol.ts';
import type { AioMode, DiskSpec } from '../model/disk.ts';
import type { Emptiness } from '../model/emptiness.ts';
import type { HostLuksSpec } from '../model/encryption.ts';
import type { QemuNames } from '../model/names.ts';
import type { QemuObject } from '../model/objects.ts';
import type { ServerAddress } from '../relay-arguments.ts';

/** What a look at a source found on the host, as it was then. */
export interface Inspection<S> {
  /** The source as it was opened: every symbolic link resolved. */
  readonly resolved: S;
  /** The same for every name of the same bytes: claims go by it ("file:DEV:INODE", "block:MAJOR:MINOR"). */
  readonly identity: string;
  /** Bytes that the guest will see. */
  readonly sizeBytes: number;
  /** Its bytes on the host end with a whole sector of 512: QEMU's io_uring hangs on the last part of any other. */
  readonly endsInSector: boolean;
  /** For host_luks: it is empty, and an image has to be made in it first. */
  readonly blank?: boolean;
  /** `look` where nothing is to be made of it. */
  readonly emptiness: Emptiness;
}

/** How the source is going to be used. */
export interface IntendedUse {
  readonly readOnly: boolean;
  /** Bytes. */
  readonly logicalBlockSize: number;
  readonly hostLuks: HostLuksSpec | undefined;
  /** A file system, or encryption in the guest, is to be made if it is empty: so that is to be found out. */
  readonly createsIfEmpty: boolean;
  /** It is used past the host's page cache (O_DIRECT). */
  readonly direct: boolean;
}

/** What a kind of source asks of its QEMU and its VM. */
export interface Demands {
  /** Block drivers that the binary must have (query-qmp-schema, BlockdevDriver). */
  readonly blockDrivers: readonly string[];
  /** The guest's memory must be shared with another process. */
  readonly sharedMemory: boolean;
  /** A VM that has it cannot be saved as a template. */
  readonly noClones: boolean;
}

/** What QEMU lists of a volume. */
export interface Seen {
  /** The node that the front end uses. */
  readonly root: BlockNodeInfo;
  /** The one below it, where the bytes are. */
  readonly protocol: BlockNodeInfo;
  /** Names of its helpers. */
  readonly objects: readonly string[];
  /** The server behind the socket of a relay; undefined for every other path. @throws Error when nobody knows it */
  readonly relayed?: (socket: string) => ServerAddress | undefined;
}

/** The kind as the `qshim` command shows it and asks for it. Pure: what a value means, the daemon decides. */
export interface SourceCommand {
  /** Name of the option of `qshim volume attach`, without the dashes. */
  readonly option: string;
  /** As help shows its value, `<path>`. */
  readonly value: string;
  readonly description: string;
  /** The message of the API for a value of the option. @throws Error that says what is wrong with it */
  fromText(text: string, absolute: (path: string) => string): object;
  /** A message from a list of volumes, with paths that do not depend on where the command runs. */
  absolute(message: object, absolute: (path: string) => string): object;
  /** In one or two words, for tables. */
  show(message: object): string;
}

/**
 * One kind of source: everything that is different about it, in one place. The registry (registry.ts) hands it to the
 * API's conversion, the journal, attach, recovery, doctor and the command line; none of them asks for the kind.
 *
 *     API message ─ fromMessage ─▶ spec ─ complete ─▶ inspect ─▶ protocol, helpers ─▶ QEMU
 *     QEMU's lists ─ recognise ─▶ spec                journal ◀─ schema ─▶ spec
 */
export interface SourceModule<S extends { readonly kind: string }> {
  readonly kind: S['kind'];
  /** Its name in the API: a member of VolumeSpec's `source`, as the proto file spells it. */
  readonly apiName: string;
  /** The same as protobuf's JSON names write it. */
  readonly messageName: string;
  /** As the journal keeps it. */
  readonly schema: z.ZodType<S>;
  readonly command: SourceCommand;
  readonly demands: Demands;
  /** Whether QEMU can open a LUKS image in it, and qshim can look at its header. */
  readonly carriesHostLuks: boolean;
  /** QEMU asks the source for its block sizes, so that a disk's have to be named. */
  readonly hostBlockSizes: boolean;
  /** Whether QEMU's block_resize to less than it has would cut it: a file. A device has the size that it has. */
  readonly canBeCut: boolean;
  /** QEMU gets it as an open file, and opens no path. */
  readonly byDescriptor: boolean;
  /** The format node over the protocol node. */
  readonly format: { readonly driver: 'raw' } | { readonly driver: 'qcow2'; readonly backing: null };

  /** The file that has to be touched to look at it; undefined where there is none. */
  filePath(source: S): string | undefined;
  fromMessage(message: object): S;
  toMessage(source: S): object;
  /** @throws ShimError INVALID_ARGUMENT that names the field */
  complete(requested: S): S;
  /** In one word, for people: a path, a URI. */
  describe(source: S): string;
  /** Where it is, for who may use what: a path of this host, or `nbd:HOST`. Nothing of it was checked. */
  place(source: S): string;
  /** The source as QEMU opens it, put together again from its spec and what `describe` said of the resolved one. */
  resolved(source: S, described: string): S;

  /**
   * Looks at the host and refuses what cannot be attached safely. Changes nothing. Where there is a `filePath` it runs
   * in a helper (volume/looks.ts).
   * @param config whole: a kind may have options of its own
   * @param keep takes what was opened and looked at, for QEMU, where the source goes `byDescriptor`
   * @throws ShimError INVALID_ARGUMENT, PERMISSION_DENIED, FAILED_PRECONDITION
   */
  inspect(source: S, use: IntendedUse, config: Config, keep?: Keep): Promise<Inspection<S>>;
  /**
   * The aio modes to try, best first. `undefined`: the protocol has none. One that is chosen and not among them is
   * refused.
   * @param endsInSector as the inspection saw it; io_uring is for no other source
   */
  aioModes(disk: DiskSpec, endsInSector: boolean): readonly (AioMode | undefined)[];
  /** The server that QEMU connects to, or a relay for it (volume/relays.ts). Left out where there is none. */
  server?(resolved: S): ServerAddress;
  /**
   * The protocol node, `names.protocol`, spelled out.
   * @param resolved as QEMU is to open it
   * @param relay the socket by which QEMU reaches the server; undefined: it connects by itself
   */
  protocol(
    resolved: S,
    names: QemuNames,
    disk: DiskSpec,
    aio: AioMode | undefined,
    relay: string | undefined,
  ): BlockdevProtocol;
  /** What the protocol node needs in QEMU, to be added before it. @param relay as `protocol` takes it */
  helpers(resolved: S, names: QemuNames, relay: string | undefined): readonly QemuObject[];
  /**
   * Gives a file that was just made the bytes of an empty source. Left out where none can be made. Runs in a helper.
   * @param sizeBytes as `inspect` would then find it
   */
  make?(handle: FileHandle, sizeBytes: number): Promise<void>;
  /** The source that this was made of; undefined when it is of another kind. */
  recognise(seen: Seen): S | undefined;
  /** `identity` of what QEMU has open, when the journal is lost. */
  identify(resolved: S): Promise<string>;
  /** Bytes that the host has left for it; Infinity where that is not to be seen. */
  freeBytes(resolved: S): Promise<number>;
}
