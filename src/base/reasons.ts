/**
 * Every reason that qshim gives, in one table: `google.rpc.ErrorInfo.reason` of an error, `reason` of a record's or an
 * event's cause, and what the command and the daemon say of themselves. Programs branch on reasons, so a reason keeps
 * its name and its status. `npm run error-docs` makes docs/errors.md of it; `ShimError` takes its types from it.
 */

/** The gRPC statuses that qshim uses, and when. `grpc/status.ts` maps the names to numbers. */
export const STATUSES = {
  INVALID_ARGUMENT: 'The request is malformed or contradicts itself.',
  NOT_FOUND: 'There is no such sandbox, volume, container or key.',
  ALREADY_EXISTS: 'The id exists with another spec, or the serial is taken.',
  PERMISSION_DENIED: 'The policy does not let the caller do it, or configuration or host do not let the daemon.',
  FAILED_PRECONDITION: 'The state of the sandbox, the volume, the source, the host or the guest does not allow it.',
  RESOURCE_EXHAUSTED: 'No slot is left, a queue is full, or there are too many of something.',
  ABORTED: 'Another operation won, a Stop for instance.',
  CANCELLED: 'The caller gave up; what was begun goes on.',
  DEADLINE_EXCEEDED: 'The guest, QEMU or another operation has not done it in time.',
  OUT_OF_RANGE: 'The events that were asked for are no longer retained.',
  UNAVAILABLE: 'QEMU, its guest agent, a source of keys or the journal cannot be reached, or the daemon is stopping.',
  UNIMPLEMENTED: 'It needs a newer QEMU or guest, or qshim does not do it.',
  INTERNAL: 'QEMU gave an unexpected error, or there is a bug in qshim.',
} as const;

/** A gRPC status by name. */
export type ShimCode = keyof typeof STATUSES;

/** Where a reason appears. */
export type Place =
  /** The error of a call, or a problem in the answer to a batch; and the cause of what that error has led to. */
  | 'api'
  /** The cause of a record or an event without such an error. */
  | 'cause'
  /** The `qshim` command's own. */
  | 'command'
  /** The daemon does not start. */
  | 'start'
  /** It does not leave the daemon, but for its log. */
  | 'inside';

/** One row of the table. */
export interface ReasonRow {
  /** The statuses that it can come with; none for what is a cause and no error. */
  readonly statuses: readonly ShimCode[];
  readonly where: readonly Place[];
  /** What is so, in one sentence. */
  readonly meaning: string;
  /** What to do about it, in one sentence. */
  readonly remedy: string;
}

export const REASONS = {
  // Requests.
  INVALID_FIELD: {
    statuses: ['INVALID_ARGUMENT'],
    where: ['api'],
    meaning: 'A field of the request has a value that it cannot have.',
    remedy: 'Correct the field that the metadata names.',
  },
  INVALID_ID: {
    statuses: ['INVALID_ARGUMENT'],
    where: ['api'],
    meaning: 'An id is empty, too long, or has characters that ids may not have.',
    remedy: 'Use 1 to 64 letters, digits, ".", "_" and "-", and begin with a letter or digit.',
  },
  INVALID_PATH: {
    statuses: ['INVALID_ARGUMENT'],
    where: ['api'],
    meaning: 'A path is not absolute, too long, has "." or ".." in it, or leads through too many symbolic links.',
    remedy: 'Name the file by a plain absolute path.',
  },
  INVALID_SIZE: {
    statuses: ['INVALID_ARGUMENT'],
    where: ['api'],
    meaning: 'The source is empty, too large, or no multiple of the block size.',
    remedy: 'Give the source a size that a disk can have.',
  },
  INVALID_MOUNT_POINT: {
    statuses: ['INVALID_ARGUMENT'],
    where: ['api'],
    meaning: 'The mount point is not a plain absolute path in the guest, or ends with a slash.',
    remedy: 'Name a plain absolute path.',
  },
  INVALID_MOUNT_OPTION: {
    statuses: ['INVALID_ARGUMENT'],
    where: ['api'],
    meaning: 'A mount option has characters that no plain option has, or is `ro` or `rw`.',
    remedy: 'Leave the option out, write it as mount(8) takes it, or, for `ro`, make the volume read-only.',
  },
  MALFORMED_REQUEST: {
    statuses: ['INVALID_ARGUMENT'],
    where: ['api'],
    meaning: 'The request is not a protobuf message of the type that the method takes.',
    remedy: 'Make the client from the files in `proto/`, or by server reflection.',
  },
  WRONG_FILE_TYPE: {
    statuses: ['INVALID_ARGUMENT'],
    where: ['api'],
    meaning: 'The path leads to another kind of file than the request says.',
    remedy: 'Name a file of that kind, or say which kind it is.',
  },
  NOT_QCOW2: {
    statuses: ['INVALID_ARGUMENT'],
    where: ['api'],
    meaning: 'The source is given as qcow2 and has no header of one.',
    remedy: 'Give it as a raw file, or name a qcow2 image.',
  },
  QCOW2_BACKING_FILE: {
    statuses: ['INVALID_ARGUMENT'],
    where: ['api'],
    meaning: 'The qcow2 image has a backing file, which could be any file of the host.',
    remedy: 'Flatten the image with `qemu-img convert`.',
  },
  QCOW2_DATA_FILE: {
    statuses: ['INVALID_ARGUMENT'],
    where: ['api'],
    meaning: 'The qcow2 image keeps its data in another file, which could be any file of the host.',
    remedy: 'Convert the image with `qemu-img convert`, without an external data file.',
  },
  QCOW2_ENCRYPTED: {
    statuses: ['INVALID_ARGUMENT'],
    where: ['api'],
    meaning: 'The qcow2 image is encrypted by itself.',
    remedy: 'Convert the image to a plain one, and let qshim encrypt (docs/encryption.md).',
  },

  // Sandboxes.
  SANDBOX_NOT_FOUND: {
    statuses: ['NOT_FOUND'],
    where: ['api'],
    meaning: 'There is no sandbox of that id, or no pod of that id in the namespace.',
    remedy: 'List the sandboxes, or create it.',
  },
  SANDBOX_EXISTS: {
    statuses: ['ALREADY_EXISTS'],
    where: ['api'],
    meaning: 'A sandbox of that id exists with another spec, or is not that of the pod.',
    remedy: 'Use another id, or delete the sandbox first.',
  },
  SANDBOX_NOT_RUNNING: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The sandbox is being created or has stopped, and the call needs one that runs.',
    remedy: 'Wait until the sandbox runs, start it again, or create another one.',
  },
  SANDBOX_RUNNING: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'A sandbox that has not stopped is deleted only with force.',
    remedy: 'Stop the sandbox first, or delete it with force.',
  },
  SANDBOX_CREATING: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The sandbox is still being created, or what a failed start of that id has left is still being removed.',
    remedy: 'Call again once Create has answered, or a moment later.',
  },
  SANDBOX_STOPPING: {
    statuses: ['ABORTED', 'FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The sandbox is being stopped: the operation was broken off (ABORTED) or not begun (FAILED_PRECONDITION).',
    remedy: 'Do it in another sandbox; this one does not come back.',
  },
  SANDBOX_NOT_PAUSED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'QEMU does not say that the VM is paused: it stands still for another reason, which `run_state` names.',
    remedy: 'Read the run state: a VM in `io-error` waits for room on the host, and goes on by itself.',
  },
  SANDBOX_NOT_RESUMED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'QEMU does not say that the VM runs: it has stopped again, or cannot go on.',
    remedy: 'Read the run state: after `io-error` make room on the host, after `guest-panicked` reboot the sandbox.',
  },
  RESET_NOT_SEEN: {
    statuses: ['DEADLINE_EXCEEDED'],
    where: ['api'],
    meaning: 'QEMU was asked to reset the VM and has not said that it did.',
    remedy: 'Look at the sandbox; reboot it again, or stop it.',
  },
  SANDBOX_NOT_ADOPTED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The directory of that id has a VM that this daemon could not take over, or a journal of a later qshim.',
    remedy:
      'Restart the daemon, which tries again, or end the process that the message names; a journal of a later version is for the version that wrote it.',
  },
  TOO_MANY_SANDBOXES: {
    statuses: ['RESOURCE_EXHAUSTED'],
    where: ['api'],
    meaning: 'There are as many sandboxes as `sandboxes_max` allows.',
    remedy: 'Delete sandboxes that have stopped, or raise `sandboxes_max`.',
  },
  BOOT_IMAGE_NOT_FOUND: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: "The guest's kernel or ramdisk cannot be read.",
    remedy: 'Make the reference guest with `npm run guest`, or name other files.',
  },
  CONFINEMENT_MISSING: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning:
      'Something that is to confine QEMU is missing and `confine = full` does not do without, or the control group could not be made; the message has the list.',
    remedy: 'See what `qshim doctor` says, and put it right, or set `confine = degraded`.',
  },
  CONFINEMENT_NOT_TRIED: {
    statuses: ['UNAVAILABLE'],
    where: ['api'],
    meaning:
      'What QEMU can be confined by on this host could not be found out, for want of descriptors, processes, memory or time, so QEMU was not started.',
    remedy: 'Read why in the message, and try again.',
  },
  NBD_RELAY_NOT_STARTED: {
    statuses: ['UNAVAILABLE'],
    where: ['api'],
    meaning:
      'The QEMU of the sandbox is confined, and the process that is to take it to the NBD server could not be started.',
    remedy: 'Read why in the message, and try again.',
  },
  CONFINE_UIDS_IN_USE: {
    statuses: ['RESOURCE_EXHAUSTED'],
    where: ['api'],
    meaning: 'Each user id of `confine_uids` belongs to a QEMU that runs.',
    remedy: 'Give `confine_uids` a larger range.',
  },
  OUTSIDE_BOOT_ROOTS: {
    statuses: ['PERMISSION_DENIED'],
    where: ['api'],
    meaning: 'The kernel or ramdisk lies outside the directories of `boot_roots`, once symbolic links are resolved.',
    remedy: 'Move the file, or add its directory to `boot_roots`.',
  },
  BOOT_IMAGE_WRITABLE: {
    statuses: ['PERMISSION_DENIED'],
    where: ['api'],
    meaning: 'Others than root and the user of the daemon may change the kernel or ramdisk.',
    remedy: 'Take the right to write to the file that the message names from others, or give it to root.',
  },
  BOOT_IMAGE_READ_ONLY: {
    statuses: ['PERMISSION_DENIED'],
    where: ['api'],
    meaning: 'The source is a kernel or ramdisk that guests boot, and the volume would write to it.',
    remedy: 'Attach it read-only, or attach a copy that lies outside `boot_roots`.',
  },
  KVM_UNUSABLE: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The request asks for KVM, which does not work on this host.',
    remedy: 'See what `qshim doctor` says, or ask for the accelerator `auto`.',
  },
  ACPI_HOTPLUG_OFF: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'This QEMU does not hot-plug PCI devices through ACPI, which qshim relies on.',
    remedy: 'Use another build of QEMU.',
  },
  QEMU_NOT_STARTED: {
    statuses: ['FAILED_PRECONDITION', 'UNAVAILABLE'],
    where: ['api'],
    meaning: 'QEMU could not be started (FAILED_PRECONDITION), or could not be looked at once it was (UNAVAILABLE).',
    remedy: 'Check `qemu_binary` with `qshim doctor`, and that the host has processes and descriptors left.',
  },
  QEMU_EXITED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api', 'cause'],
    meaning: 'QEMU has ended unasked: while it started, or, as the cause of a stopped sandbox, while it ran.',
    remedy: "Read QEMU's own words in the message and in `qemu.log` of the sandbox.",
  },
  QEMU_NOT_KILLED: {
    statuses: ['UNAVAILABLE'],
    where: ['api'],
    meaning: 'QEMU is still there after SIGKILL, or could not be sent it; the message says which.',
    remedy: 'Look at what the host keeps the process in (storage that hangs), and stop the sandbox again.',
  },
  QEMU_TOO_OLD: {
    statuses: ['UNIMPLEMENTED'],
    where: ['api'],
    meaning: 'QEMU is older than qshim needs.',
    remedy: 'Install a QEMU of the version that the message names.',
  },
  QEMU_COMMAND_UNFIT: {
    statuses: ['UNIMPLEMENTED'],
    where: ['api'],
    meaning:
      'The call needs an experimental command of QEMU, and this QEMU was not seen to survive it: it ended at it when qshim tried it in a VM of its own, it refused it, or it could not be tried.',
    remedy:
      'See the message and `qshim doctor`; use another QEMU. What could not be tried is tried again after a minute.',
  },
  GUEST_AGENT_NOT_READY: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The guest agent of the sandbox has not answered yet, or does not answer any more.',
    remedy: 'Wait until the sandbox shows its agent as ready, and check that the guest runs one.',
  },
  GUEST_EXEC_REFUSED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The guest did not run the command.',
    remedy: 'Check that the program exists in the guest and may be run.',
  },
  GUEST_EXEC_TIMEOUT: {
    statuses: ['DEADLINE_EXCEEDED'],
    where: ['api'],
    meaning:
      'A command in the guest was not seen to start or to end in time, or its output could not be had after it was killed.',
    remedy: 'Allow the command more time; where `killed` in the metadata is not true, it may still run in the guest.',
  },
  TOO_MANY_COMMANDS: {
    statuses: ['RESOURCE_EXHAUSTED'],
    where: ['api'],
    meaning: 'As many commands run in the sandbox as `exec_max` allows.',
    remedy: 'Wait for one to end, or raise `exec_max`.',
  },

  // What becomes of sandboxes: causes of their records and events.
  STOP_REQUESTED: {
    statuses: [],
    where: ['cause'],
    meaning: 'A caller asked to stop the sandbox.',
    remedy: 'Nothing: the sandbox is on its way to stopped.',
  },
  STOPPED: {
    statuses: [],
    where: ['cause'],
    meaning: 'The sandbox has stopped as a caller asked, and QEMU was seen to be gone.',
    remedy: 'Nothing: the sandbox can be deleted.',
  },
  GUEST_BOOT_FAILED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The guest reset itself, panicked or shut itself down before its agent answered.',
    remedy: 'Read the end of its console in the message; too little memory is a frequent cause (docs/limits.md).',
  },
  GUEST_SHUTDOWN: {
    statuses: [],
    where: ['cause'],
    meaning: 'The guest shut itself down.',
    remedy: 'Look in the console log if it should not have.',
  },
  GUEST_PANICKED: {
    statuses: [],
    where: ['cause'],
    meaning: "The guest's kernel panicked.",
    remedy: 'Read why in the console log.',
  },
  QEMU_UNRESPONSIVE: {
    statuses: ['DEADLINE_EXCEEDED', 'UNAVAILABLE'],
    where: ['api', 'cause'],
    meaning: 'The QEMU of the sandbox runs, but does not answer its monitor: the VM may stand still.',
    remedy: 'Look at what it waits for (a source that has shrunk, a host without memory), and stop it with force.',
  },
  QEMU_RESPONSIVE: {
    statuses: [],
    where: ['cause'],
    meaning: 'A QEMU that had not answered its monitor answers again.',
    remedy: 'Look at the health of its volumes.',
  },
  GUEST_OVER_BUDGET: {
    statuses: [],
    where: ['cause'],
    meaning:
      'The guest sends the daemon more than it may (`guest_bytes_per_second_max` and its siblings), or something that nobody asked for: that channel was ended, or is read slowly.',
    remedy: 'Look at what runs in the guest; stop the sandbox if nobody trusts it.',
  },
  GUEST_WITHIN_BUDGET: {
    statuses: [],
    where: ['cause'],
    meaning: 'A guest that had gone over its budget has kept to it for half a minute.',
    remedy: 'None is needed.',
  },
  GUEST_RESET: {
    statuses: ['UNAVAILABLE'],
    where: ['api', 'cause'],
    meaning:
      'The guest was reset or rebooted; its volumes are still attached, mounts of before are gone, and so are commands.',
    remedy: 'Detach and attach the volumes that were mounted; run the command again.',
  },
  ADOPTED: {
    statuses: [],
    where: ['cause'],
    meaning: 'This daemon has taken the sandbox over from an earlier one.',
    remedy: 'Nothing: the sandbox goes on as before.',
  },

  // Volumes.
  VOLUME_NOT_FOUND: {
    statuses: ['NOT_FOUND'],
    where: ['api'],
    meaning: 'The sandbox has no volume of that id, and remembers none.',
    remedy: 'List the volumes of the sandbox, or attach it.',
  },
  VOLUME_EXISTS: {
    statuses: ['ALREADY_EXISTS'],
    where: ['api'],
    meaning: 'A volume of that id is attached with another spec.',
    remedy: 'Use another id, or detach the volume first.',
  },
  SERIAL_IN_USE: {
    statuses: ['ALREADY_EXISTS'],
    where: ['api'],
    meaning: 'Another volume of the sandbox, or of the batch, has that serial.',
    remedy: 'Give another serial, or none.',
  },
  VOLUME_PENDING: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The volume is still being attached, or its failed attach is still being undone.',
    remedy: 'Wait until the volume is ATTACHED or REMOVED.',
  },
  VOLUME_DETACHING: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The volume is being detached.',
    remedy: 'Attach it again once it is REMOVED.',
  },
  VOLUME_BUSY: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'Something in the guest uses the volume, which stays ATTACHED.',
    remedy: 'End what the message names, or detach with force.',
  },
  VOLUME_NOT_MOUNTED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The volume is attached, but its mount is not known to be there any more.',
    remedy: 'Detach the volume, then attach it again.',
  },
  VOLUME_NOT_ATTACHED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The call needs a volume that is ATTACHED.',
    remedy: 'Wait until it is, or attach it.',
  },
  VOLUME_READ_ONLY: {
    statuses: ['ALREADY_EXISTS', 'FAILED_PRECONDITION'],
    where: ['api'],
    meaning:
      'The volume is read-only and cannot be resized (FAILED_PRECONDITION), or another container of the pod has it read-only and this one would write (ALREADY_EXISTS).',
    remedy: 'Detach the volume and attach it writable, or start the container that writes first.',
  },
  NO_SLOT: {
    statuses: ['RESOURCE_EXHAUSTED'],
    where: ['api'],
    meaning: 'The sandbox has as many volumes as its capacity allows.',
    remedy: 'Detach a volume, or create sandboxes with a larger `volume_capacity`.',
  },
  SOURCE_KIND_UNSUPPORTED: {
    statuses: ['UNIMPLEMENTED'],
    where: ['api'],
    meaning: "The sandbox's QEMU has no block driver for this kind of source.",
    remedy:
      'Use another kind of source, or a QEMU that has the driver (`qshim doctor` lists the kinds that can be opened).',
  },
  OPERATION_IN_PROGRESS: {
    statuses: ['DEADLINE_EXCEEDED', 'FAILED_PRECONDITION'],
    where: ['api'],
    meaning:
      'The volume is in the midst of another operation, which the metadata names (DEADLINE_EXCEEDED: a detach has waited for its end).',
    remedy: 'Ask again when that operation has ended; the same resize with the same arguments joins it.',
  },
  TARGET_NOT_EMPTY: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'Something lies on the target of a move, or whether it does cannot be seen.',
    remedy: 'Name an empty target, or ask for it to be overwritten.',
  },
  TARGET_SIZE_DIFFERS: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The target of a move has not as many bytes as the volume.',
    remedy: 'Give the target the size of the volume, or resize the volume first.',
  },
  MOVE_UNSUPPORTED: {
    statuses: ['UNIMPLEMENTED'],
    where: ['api'],
    meaning: 'A volume that is encrypted so cannot be moved there.',
    remedy: 'See docs/live.md, "Move", for what can be moved to where.',
  },
  MOVE_FAILED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api', 'cause'],
    meaning: 'QEMU has ended the copy of a volume to its target; the volume is on its source, as it was.',
    remedy: 'See what QEMU says in the message: make room on the target, or mend it, and move it again.',
  },
  MOVE_INTERRUPTED: {
    statuses: ['ABORTED'],
    where: ['api', 'cause'],
    meaning: 'The daemon or its connection to QEMU ended before the copy had begun; the volume is as it was.',
    remedy: 'Move it again.',
  },
  NOT_MOVING: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The volume is not being moved.',
    remedy: 'List its operations: the move may have ended.',
  },
  OPERATION_NOT_FOUND: {
    statuses: ['NOT_FOUND'],
    where: ['api'],
    meaning: 'The sandbox has no operation of that id; of each volume the last eight that have ended are remembered.',
    remedy: 'List the operations of the sandbox.',
  },
  OPERATION_EXISTS: {
    statuses: ['ALREADY_EXISTS'],
    where: ['api'],
    meaning: 'An operation of that id exists in the sandbox, with another request.',
    remedy: 'Choose another id.',
  },
  OPERATION_NOT_CANCELLABLE: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The operation is of a kind that cannot be cancelled: it ends by itself.',
    remedy: 'Wait for its end.',
  },
  CONCURRENT_OPERATION: {
    statuses: ['ABORTED', 'DEADLINE_EXCEEDED'],
    where: ['api'],
    meaning:
      'The attach that this call joined ended otherwise (ABORTED), or another operation on the volume has not ended and nothing was begun (DEADLINE_EXCEEDED).',
    remedy: 'Get the volume, and call again if it is still needed.',
  },
  BATCH_UNDONE: {
    statuses: ['ABORTED'],
    where: ['api'],
    meaning: 'Another volume of the batch failed, so this one was detached again.',
    remedy: 'Mend what the other problem of the batch says, and call again.',
  },
  DEVICE_VANISHED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api', 'cause'],
    meaning: 'QEMU no longer has the device, and qshim had not asked for that.',
    remedy: 'Find out who removed it (another QMP client, the guest by ejecting it), and attach the volume again.',
  },
  GUEST_DRIVER_FAILED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: "The guest's driver gave up on the disk; the attach is undone.",
    remedy:
      "Look in the guest's console: interrupt vectors may have run out, or the guest cannot take such a block size.",
  },
  GUEST_DRIVER_TIMEOUT: {
    statuses: ['DEADLINE_EXCEEDED'],
    where: ['api'],
    meaning: "The guest's driver did not come up on the disk in time; the attach is undone.",
    remedy: "Look in the guest's console, and allow more time if the guest is only slow.",
  },
  SLOT_NOT_SETTLED: {
    statuses: ['DEADLINE_EXCEEDED'],
    where: ['api'],
    meaning:
      'Every free slot was just freed, and the guest has not worked off in time what it was asked for before, so a disk there might be taken away again.',
    remedy: "Call again; if it lasts, look in the guest's console at why the guest is slow.",
  },
  GUEST_HOLDS_VOLUME: {
    statuses: ['DEADLINE_EXCEEDED'],
    where: ['api'],
    meaning:
      'The guest has not let go of the volume in time; it stays DETACHING and the daemon goes on asking, until the volume is removed, or ATTACHED again with the cause when the guest refuses.',
    remedy: 'Wait with Watch or with the same call again.',
  },
  GUEST_NOT_ASKED: {
    statuses: ['DEADLINE_EXCEEDED'],
    where: ['api'],
    meaning:
      'Whether the guest uses the volume, or still has it mounted, is not known, as its agent is silent or cannot tell; the volume stays ATTACHED.',
    remedy:
      'Call again when the guest answers, or detach with force, which takes the disk whatever the guest does with it.',
  },
  QEMU_HOLDS_VOLUME: {
    statuses: ['DEADLINE_EXCEEDED'],
    where: ['api'],
    meaning:
      'The guest has let go of the volume and QEMU has not, for a block job or an export that the message names; it stays DETACHING.',
    remedy: 'End what the message names; the daemon then finishes the detach by itself.',
  },
  SHRINK_REFUSED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The new size is smaller than the present one, or than the source.',
    remedy: 'Ask for a larger size: volumes only grow.',
  },
  RESIZE_FAILED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'QEMU has not given the volume the new size.',
    remedy: 'Read why in the message, and make room on the host if it lacks any.',
  },
  BUDGET_NOT_FOUND: {
    statuses: ['NOT_FOUND'],
    where: ['api'],
    meaning: 'The daemon has no such budget of I/O.',
    remedy: 'Make it by Budgets.Set, or name another one.',
  },
  BUDGET_IN_USE: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'A volume, which the metadata names, draws on the budget.',
    remedy: 'Give that volume other limits, or detach it.',
  },
  BUDGET_FULL: {
    statuses: ['RESOURCE_EXHAUSTED'],
    where: ['api'],
    meaning: 'So small a budget cannot be split among one more volume.',
    remedy: 'Give the budget more.',
  },
  LIMITS_FAILED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'QEMU does not hold the volume to the limits that were asked for.',
    remedy: 'Read why in the message; the volume tells what it is held to.',
  },
  GUEST_SIZE_NOT_SEEN: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The volume has grown, but the guest does not see its new size.',
    remedy: 'Resize again to the same size, or look in the guest.',
  },
  GUEST_RESIZE_FAILED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The volume has grown, but the guest could not grow its file system.',
    remedy: 'Read why in the message, and resize again to the same size.',
  },

  // What becomes of volumes: causes of their records and events.
  DETACH_REQUESTED: {
    statuses: [],
    where: ['cause'],
    meaning: 'A caller asked to detach the volume.',
    remedy: 'Nothing: the volume is on its way to REMOVED, or there.',
  },
  INTERRUPTED: {
    statuses: [],
    where: ['cause'],
    meaning: 'The daemon ended before QEMU had the device, and the next one has undone the attach.',
    remedy: 'Attach the volume again.',
  },
  IO_ERROR: {
    statuses: [],
    where: ['cause'],
    meaning: 'A read or write of the volume failed on the host.',
    remedy: 'Look at the storage behind the source.',
  },
  NO_SPACE: {
    statuses: [],
    where: ['cause'],
    meaning: 'A write failed because the file system behind the source is full.',
    remedy: 'Make room: a VM that has paused for it goes on by itself.',
  },
  RESUMED: {
    statuses: [],
    where: ['cause'],
    meaning: 'The VM that had paused for want of space goes on.',
    remedy: 'Nothing: QEMU does again what had failed.',
  },
  RESIZED: {
    statuses: [],
    where: ['cause'],
    meaning: 'The disk has a new size.',
    remedy: 'Nothing: the message names the sizes.',
  },
  MOVE_OUTCOME_UNKNOWN: {
    statuses: ['ABORTED'],
    where: ['api', 'cause'],
    meaning: 'The VM or the disk went while a volume was put on another medium, and on which it was last was not seen.',
    remedy: 'Look at both copies that the metadata names: neither was touched since.',
  },
  OPERATION_STARTED: {
    statuses: [],
    where: ['cause'],
    meaning: 'An operation on the volume was begun; the message names its kind and its id.',
    remedy: 'Nothing: `qshim operation watch` follows it.',
  },
  OPERATION_PROGRESS: {
    statuses: [],
    where: ['cause'],
    meaning: 'An operation on the volume has come further.',
    remedy: 'Nothing: the message says how far.',
  },
  OPERATION_DONE: {
    statuses: [],
    where: ['cause'],
    meaning: 'An operation on the volume has done what was asked for, and that was seen.',
    remedy: 'Nothing.',
  },
  OPERATION_FAILED: {
    statuses: [],
    where: ['cause'],
    meaning: 'An operation on the volume has failed; the message says why.',
    remedy: 'See to the reason in the message, and begin another one.',
  },
  OPERATION_CANCELLED: {
    statuses: [],
    where: ['cause'],
    meaning: 'An operation on the volume was cancelled, as somebody asked: the volume is as it was before.',
    remedy: 'Nothing.',
  },
  LEASE_RENEWED: {
    statuses: [],
    where: ['cause'],
    meaning: 'The lease of the volume has a new end, which the message names.',
    remedy: 'Nothing.',
  },
  LEASE_ENDING: {
    statuses: [],
    where: ['cause'],
    meaning: 'The lease of the volume is about to end; the message says when.',
    remedy: 'Renew it if the volume is needed: `qshim volume renew`.',
  },
  LEASE_ENDED: {
    statuses: [],
    where: ['cause'],
    meaning: 'The lease of the volume has ended, and the volume is on its way out.',
    remedy: 'Nothing; attach the volume again where it is needed.',
  },
  LEASE_HELD: {
    statuses: [],
    where: ['cause'],
    meaning:
      'The lease of the volume has ended, and the volume is still there: the message says who holds it, and qshim asks again.',
    remedy: 'Have the guest let go of the volume, renew the lease, or detach with force.',
  },
  LEASE_FORCE_AHEAD: {
    statuses: [],
    where: ['cause'],
    meaning: 'A volume whose lease has ended is taken by force at the time in the message (`lease_fence = force`).',
    remedy: 'Have the guest let go of the volume before, or renew the lease.',
  },
  LEASE_FORCED: {
    statuses: [],
    where: ['cause'],
    meaning: 'A volume whose lease has ended is being taken by force, as was told before (`lease_fence = force`).',
    remedy: 'Check the file system before the next use: what the guest had not written is lost.',
  },
  VOLUME_REMOVED: {
    statuses: ['ABORTED'],
    where: ['api', 'cause'],
    meaning: 'An operation has ended because its volume was removed meanwhile.',
    remedy: 'Look at the volume.',
  },
  LIMITED: {
    statuses: [],
    where: ['cause'],
    meaning: "The disk's I/O is held to other limits.",
    remedy: 'Nothing: the message names them; a volume of the same group may have been set.',
  },
  JOB_PROGRESS: {
    statuses: [],
    where: ['cause'],
    meaning: 'A job of QEMU on the volume, such as the making of an encrypted image, has come further.',
    remedy: 'Nothing: the message says how far.',
  },

  // Callers.
  CALLER_NOT_NAMED: {
    statuses: ['PERMISSION_DENIED'],
    where: ['api'],
    meaning: 'No rule of the policy names the caller.',
    remedy: 'Add the user, a group of it or the certificate to a rule of the policy file.',
  },
  ROLE_MISSING: {
    statuses: ['PERMISSION_DENIED'],
    where: ['api'],
    meaning: 'No rule of the policy gives the caller the role that the method needs.',
    remedy: 'Add the role to a rule that names the caller.',
  },
  SANDBOX_NOT_GRANTED: {
    statuses: ['PERMISSION_DENIED'],
    where: ['api'],
    meaning: 'The caller has the role for other sandboxes only: those with the labels that its rules name.',
    remedy: 'Use a sandbox with those labels, or add a rule for this one.',
  },
  ROOT_NOT_GRANTED: {
    statuses: ['PERMISSION_DENIED'],
    where: ['api'],
    meaning: "The source lies below none of the roots of the caller's rules.",
    remedy: 'Move the source, or add its directory, or `nbd:HOST`, to a rule.',
  },
  KEY_NOT_GRANTED: {
    statuses: ['PERMISSION_DENIED'],
    where: ['api'],
    meaning: "The reference of the key is none of those of the caller's rules.",
    remedy: 'Name another key, or add the reference to a rule.',
  },
  AUDIT_NOT_WRITTEN: {
    statuses: ['UNAVAILABLE'],
    where: ['api'],
    meaning: 'The audit log cannot be written, and `audit_required` is on.',
    remedy: 'Make room in `state_dir`, or make it writable again.',
  },

  // The sources of volumes.
  OUTSIDE_ALLOWED_ROOTS: {
    statuses: ['PERMISSION_DENIED'],
    where: ['api'],
    meaning: 'The file lies outside the directories of `allowed_roots`, once symbolic links are resolved.',
    remedy: 'Move the file, or add its directory to `allowed_roots`.',
  },
  SOURCE_NOT_ACCESSIBLE: {
    statuses: ['PERMISSION_DENIED'],
    where: ['api'],
    meaning: 'The user of the daemon may not read the file, or not write it.',
    remedy: 'Let that user have it, or attach it read-only if it only lacks the right to write.',
  },
  SOURCE_NOT_ANSWERING: {
    statuses: ['UNAVAILABLE'],
    where: ['api'],
    meaning: 'The file system on which the file lies has not answered within source_timeout_ms.',
    remedy: 'See to that file system (a server that is gone, a FUSE program that hangs), then repeat.',
  },
  SOURCE_CHANGED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The path has led to something else between the first look and the attach.',
    remedy: 'Find out who puts other files in its place, then repeat.',
  },
  SOURCE_NOT_FOUND: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The source does not exist on the host of the daemon.',
    remedy: 'Check the path there, and that it is no dangling symbolic link.',
  },
  SOURCE_NOT_USABLE: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The source exists, and the daemon or QEMU could not open it.',
    remedy: 'Read why in the message.',
  },
  SOURCE_NOT_EMPTY: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The source is not proven to be empty, and nothing that may hold data is encrypted anew.',
    remedy: 'Name an empty source, or raise `empty_scan_bytes_max` if it was only too large to be read.',
  },
  SOURCE_TOO_SMALL: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The source has no room for a LUKS header and the size that was asked for.',
    remedy: 'Name a larger source, or ask for less.',
  },
  BACKING_IN_USE: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'Another volume, or another process, has the source, and one of the two would write.',
    remedy: 'Detach it there first; read-only volumes may share a source.',
  },
  SOURCE_STALE_COPY: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The source is the loser of a failover: the guest has written to another copy since then.',
    remedy: 'Use the copy that the metadata names; ReleaseStaleCopy gives this one free as it is.',
  },
  STALE_COPY_NOT_FOUND: {
    statuses: ['NOT_FOUND'],
    where: ['api'],
    meaning: 'There is no stale copy at this path.',
    remedy: 'List the stale copies that there are.',
  },
  STALE_COPIES_UNREADABLE: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['start'],
    meaning: 'The file of the stale copies cannot be read, so the daemon does not know which sources are old.',
    remedy: 'Mend what the message names; a file that a later version wrote needs that version.',
  },
  NBD_HOST_NOT_ALLOWED: {
    statuses: ['PERMISSION_DENIED'],
    where: ['api'],
    meaning: 'The host of the NBD server is none of those in `nbd_hosts`, which are compared as they are spelled.',
    remedy: 'Name the host as it is there, or add it to `nbd_hosts`.',
  },
  NBD_SERVER_UNREACHABLE: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The NBD server cannot be connected to, does not answer in time, or hangs up.',
    remedy: 'See that the server runs, listens there, and has room for one more client.',
  },
  NBD_EXPORT_NOT_FOUND: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The NBD server has no export of that name.',
    remedy: "List the server's exports, for instance with `qemu-nbd --list`.",
  },
  NBD_EXPORT_READ_ONLY: {
    statuses: ['PERMISSION_DENIED'],
    where: ['api'],
    meaning: 'The NBD server exports it read-only, and the volume is not.',
    remedy: 'Attach it read-only, or have the server export it for writing.',
  },
  NBD_TLS_FAILED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning:
      'One side asks for TLS and the other does not, the credentials cannot be used, or a certificate is refused.',
    remedy: 'Compare the certificates below `nbd_tls_directory` with those of the server.',
  },
  OUT_OF_DESCRIPTORS: {
    statuses: ['RESOURCE_EXHAUSTED'],
    where: ['api'],
    meaning: 'The daemon has no file descriptor left.',
    remedy: 'Raise the limit of open files of the daemon.',
  },

  // Disks and mounts, as the guest sees them.
  GUEST_DISK_NOT_FOUND: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The guest has no disk where the volume is.',
    remedy: "Look in the guest's console, and attach the volume again.",
  },
  GUEST_DISK_MISMATCH: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The disk in the guest has another serial than the volume, so nothing has touched it.',
    remedy: 'Attach the volume again; if it happens again, it is a bug in the guest or in qshim.',
  },
  GUEST_DISK_NOT_EMPTY: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The disk holds something, and nothing that holds data is formatted or encrypted.',
    remedy: 'Attach it without formatting, or name an empty source.',
  },
  GUEST_EMPTINESS_UNKNOWN: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The disk could not be proven to be empty: it is too large to be read, or reading it took too long.',
    remedy:
      'Name a sparse source, raise `empty_scan_bytes_max` or `mount_timeout_ms`, or make the file system yourself.',
  },
  GUEST_FS_MISMATCH: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The disk holds another file system than the mount asks for.',
    remedy: 'Ask for the file system that it holds.',
  },
  GUEST_NO_FILESYSTEM: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The disk is blank, and the mount does not say that it may be formatted.',
    remedy: 'Ask for formatting, or name a source that holds a file system.',
  },
  GUEST_MOUNT_POINT_BUSY: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'Something else is mounted at the mount point, or another volume is to be.',
    remedy: 'Name another mount point, or unmount the other.',
  },
  GUEST_MOUNT_FAILED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The guest could not mount the disk.',
    remedy: "Read the guest's own words in the message.",
  },
  GUEST_PARTITION_NOT_FOUND: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: "The disk's partition table has no partition of that number, or the guest does not know the table.",
    remedy: 'Look at the table, and name a partition that there is, or 0 for the whole disk.',
  },
  GUEST_FSCK_FAILED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The check before the mount ended with errors that it does not mend without asking, or could not be made.',
    remedy: 'Attach the volume without a mount and let a person run e2fsck, or go back to a copy.',
  },
  GUEST_FORMAT_FAILED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The guest could not make the file system.',
    remedy: "Read the guest's own words in the message.",
  },
  GUEST_UNMOUNT_FAILED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The guest could not unmount the disk.',
    remedy: "Read the guest's own words in the message, or detach with force.",
  },
  GUEST_PROBE_FAILED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The guest could not tell who uses the disk, so it is not taken away.',
    remedy: 'Look in the guest, or detach with force.',
  },
  GUEST_TOOL_MISSING: {
    statuses: ['UNIMPLEMENTED'],
    where: ['api'],
    meaning: 'The guest lacks a program that this needs.',
    remedy: 'Add the program that the message names to the guest (docs/guest.md).',
  },
  GUEST_OUT_OF_PROCESSES: {
    statuses: ['RESOURCE_EXHAUSTED'],
    where: ['api'],
    meaning: 'The guest has no process, or no memory for one, left for what was asked.',
    remedy: 'End what takes them all: the end of a container (signal 9) needs none.',
  },
  GUEST_DM_CRYPT_MISSING: {
    statuses: ['UNIMPLEMENTED'],
    where: ['api'],
    meaning: "The guest's kernel lacks dm-crypt or dm-integrity.",
    remedy: 'Use a kernel that has them (docs/guest.md).',
  },

  // Encryption.
  LUKS_NO_HEADER: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The source or disk is not an encrypted one, and none is to be made.',
    remedy: 'Name an encrypted source, or ask for it to be made.',
  },
  LUKS_WRONG_KEY: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The key opens none of the key slots; a damaged slot looks the same.',
    remedy: 'Name the right key.',
  },
  LUKS_HEADER_DAMAGED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The LUKS header is damaged.',
    remedy: 'Restore the header from a backup; qshim never makes it anew.',
  },
  LUKS_VERSION_UNSUPPORTED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'It is LUKS of another version: `host_luks` is LUKS1, `guest_luks2` is LUKS2.',
    remedy: 'Ask for the kind of encryption that it has.',
  },
  LUKS_DEVICE_TRUNCATED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The source or disk is smaller than when it was encrypted, or than was asked for.',
    remedy: 'Restore it in its full length before anybody writes to it.',
  },
  LUKS_DEVICE_SWAPPED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'It has another LUKS UUID than the request names.',
    remedy: 'Find out whose it is before it is used.',
  },
  LUKS_INTEGRITY_ERROR: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'What the disk holds is not what was written to it.',
    remedy: 'Restore it from a backup, and find out who changed it.',
  },
  LUKS_INTEGRITY_MISMATCH: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'Disk and request differ in whether integrity is protected.',
    remedy: 'Ask for what the disk has.',
  },
  LUKS_OUT_OF_MEMORY: {
    statuses: ['RESOURCE_EXHAUSTED'],
    where: ['api'],
    meaning: 'The guest has too little memory to derive the key.',
    remedy: 'Give the sandbox more memory.',
  },
  LUKS_DISK_IN_USE: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'Something else in the guest uses the disk.',
    remedy: 'End it, and attach the volume again.',
  },
  LUKS_NAME_IN_USE: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: "A mapping of the volume's name lies on another disk, or on none any more.",
    remedy: 'Close that mapping in the guest.',
  },
  LUKS_NOT_OPEN: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The volume is attached, but its encryption is not known to be open any more.',
    remedy: 'Detach the volume, then attach it again.',
  },
  LUKS_CREATE_FAILED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'QEMU could not make the encrypted image.',
    remedy: 'Read why in the message; with the undo of the attach the source is empty again.',
  },
  LUKS_FORMAT_FAILED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The guest could not encrypt the disk.',
    remedy: "Read the guest's own words in the message.",
  },
  LUKS_OPEN_FAILED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The guest could not open the encrypted disk.',
    remedy: "Read the guest's own words in the message.",
  },
  LUKS_CLOSE_FAILED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The guest could not close the encrypted disk.',
    remedy: "Read the guest's own words in the message, or detach with force.",
  },
  LUKS_STATUS_FAILED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The guest could not tell the state of the encrypted disk.',
    remedy: "Read the guest's own words in the message.",
  },
  LUKS_RESIZE_FAILED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The disk has grown, but the guest could not grow its encryption or what lies on it.',
    remedy: 'Read why in the message, and resize again to the same size.',
  },
  LUKS_RESIZE_UNSUPPORTED: {
    statuses: ['UNIMPLEMENTED'],
    where: ['api'],
    meaning: 'A disk whose integrity is protected cannot be resized.',
    remedy: 'Make a larger volume, and copy.',
  },
  QEMU_JOB_FAILED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'A job of QEMU ended with an error.',
    remedy: "Read QEMU's own words in the message.",
  },
  SECRET_DIR_NOT_IN_MEMORY: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: '`secret_dir` is neither on tmpfs nor on ramfs, so no key passes through it.',
    remedy: 'Set `secret_dir` to a directory in memory, such as /dev/shm.',
  },

  // Keys and key slots.
  KEY_BOUND: {
    statuses: ['PERMISSION_DENIED'],
    where: ['api'],
    meaning: 'The operator has bound the key to another kind of encryption, to other sandboxes or to another image.',
    remedy: 'Use the key for what `key_bindings` says, or another one.',
  },
  KEY_NOT_FOUND: {
    statuses: ['NOT_FOUND'],
    where: ['api'],
    meaning: 'There is no such key file, credential or variable.',
    remedy: 'Put the key there, or name another one.',
  },
  KEY_SOURCE_DOWN: {
    statuses: ['UNAVAILABLE'],
    where: ['api'],
    meaning: 'The source of the key is known and does not answer as it should.',
    remedy: 'Look at the server or command behind it, and call again.',
  },
  KEY_SOURCE_REFUSED: {
    statuses: ['PERMISSION_DENIED'],
    where: ['api', 'start'],
    meaning:
      'The operator does not allow this source of keys, or its file does not have the owner, mode or kind that it must.',
    remedy:
      'Name it in `key_directories`, `key_environment` or `key_commands`, and mend the file that the message names.',
  },
  KEY_SOURCE_TIMEOUT: {
    statuses: ['DEADLINE_EXCEEDED'],
    where: ['api'],
    meaning: 'The source has not given the key in time.',
    remedy: 'Look at the server or command behind it, or raise `key_timeout_ms`.',
  },
  KEY_EMPTY: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The key has no bytes.',
    remedy: 'Put a key into the source.',
  },
  KEY_TOO_LONG: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The key is longer than 8192 bytes, or its file is longer than one of its kind can be.',
    remedy: 'Use a shorter key.',
  },
  KEY_NOT_TEXT: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The key is not UTF-8 without NUL, which QEMU needs it to be.',
    remedy: 'Use a key of text, in base64 for instance.',
  },
  KEY_DISPOSED: {
    statuses: ['INTERNAL'],
    where: ['inside'],
    meaning: 'A key was used after its bytes had been zeroed.',
    remedy: 'Report it: it is a bug.',
  },
  INVALID_KEY_LENGTH: {
    statuses: ['INVALID_ARGUMENT'],
    where: ['inside'],
    meaning: 'A key for the guest has no bytes or too many; sources of keys refuse it before.',
    remedy: 'Report it: it is a bug.',
  },
  INVALID_MAPPING_NAME: {
    statuses: ['INVALID_ARGUMENT'],
    where: ['inside'],
    meaning: "A name is none that a mapping can have; those that are made of volumes' ids always are.",
    remedy: 'Report it: it is a bug.',
  },
  NOT_HOST_LUKS: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'Key slots are changed of `host_luks` volumes only.',
    remedy: 'Change those of other volumes in the guest.',
  },
  LAST_KEY: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The key is the only one, and without it nobody could open the volume.',
    remedy: 'Add another key first.',
  },
  SAME_KEY: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'A key is to be changed into itself; nothing was changed.',
    remedy: 'Give another new key.',
  },
  NO_FREE_KEY_SLOT: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'All key slots are in use.',
    remedy: 'Remove a key first.',
  },
  KEY_SLOT_NOT_IN_USE: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'There is no key in that slot.',
    remedy: 'List the key slots.',
  },
  KEY_SLOT_FAILED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning:
      'QEMU has not changed the key slots, has changed them in part, or the header does not show that it has changed them.',
    remedy: 'Read why, and which slots are in use, in the message, and list the key slots.',
  },

  // Containers, for containerd.
  CONTAINER_NOT_FOUND: {
    statuses: ['NOT_FOUND'],
    where: ['api'],
    meaning: 'There is no such container, or no such process in it.',
    remedy: 'Nothing: containerd takes it for gone already.',
  },
  CONTAINER_EXISTS: {
    statuses: ['ALREADY_EXISTS'],
    where: ['api'],
    meaning: 'There is a process of that id already.',
    remedy: 'Use another id, or delete the process first.',
  },
  CONTAINER_STATE: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The state of the process does not allow it.',
    remedy: 'Ask for its state, and do what that allows.',
  },
  CONTAINER_REFUSED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: "The guest's container runtime refused.",
    remedy: "Read the runtime's own words in the message.",
  },
  CONTAINER_FAILED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The guest could not do what the container needs.',
    remedy: "Read the guest's own words in the message.",
  },
  CONTAINER_NOT_REMOVED: {
    statuses: ['DEADLINE_EXCEEDED'],
    where: ['api'],
    meaning: 'The process is not removed yet; its removal goes on.',
    remedy: 'Delete it again later.',
  },
  CREATE_NOT_UNDONE: {
    statuses: ['UNAVAILABLE'],
    where: ['api'],
    meaning: 'What a failed Create of that id has left is not removed yet.',
    remedy: 'Create it again later.',
  },
  EXEC_NOT_UNDONE: {
    statuses: ['UNAVAILABLE'],
    where: ['api'],
    meaning: 'What a failed Exec of that id has left is not removed yet.',
    remedy: 'Call again later.',
  },
  TOO_MANY_PROCESSES: {
    statuses: ['RESOURCE_EXHAUSTED'],
    where: ['api'],
    meaning: 'The sandbox has as many processes of containers as `container_processes_max` allows.',
    remedy: 'Delete some, or raise `container_processes_max`.',
  },
  NO_PORT: {
    statuses: ['RESOURCE_EXHAUSTED'],
    where: ['api'],
    meaning: "The sandbox has no virtio-serial port left for the process's streams.",
    remedy: 'Delete processes, or create sandboxes with a larger `guest_ports_max`.',
  },
  PORT_NOT_SEEN: {
    statuses: ['UNAVAILABLE'],
    where: ['api'],
    meaning: 'The guest has not seen the ports of a process, although they were plugged again.',
    remedy: 'Look in the console log, and create the process again.',
  },
  PORT_NOT_FOUND: {
    statuses: ['NOT_FOUND'],
    where: ['api'],
    meaning: 'A virtio-serial port of the process is not there any more.',
    remedy: 'Look whether the sandbox has ended, and create the process again.',
  },
  INVALID_CONFIG_JSON: {
    statuses: ['INVALID_ARGUMENT'],
    where: ['api'],
    meaning: "The bundle's config.json cannot be read or understood.",
    remedy: 'Correct the field that the message names.',
  },
  INVALID_DIRECT_VOLUME: {
    statuses: ['INVALID_ARGUMENT'],
    where: ['api'],
    meaning: "Kata's record of a direct-assigned volume cannot be used.",
    remedy: 'Add the volume again with `kata-runtime direct-volume add`.',
  },
  VOLUME_MISSING: {
    statuses: ['INVALID_ARGUMENT'],
    where: ['api'],
    meaning: 'The container names a mount or a device that no volume in the guest stands for.',
    remedy: 'Add the volume to the pod.',
  },
  MOUNT_NOT_SUPPORTED: {
    statuses: ['INVALID_ARGUMENT'],
    where: ['api'],
    meaning: 'The guest cannot make such a mount.',
    remedy: 'Use a volume, or a small regular file.',
  },
  DEVICE_NOT_SUPPORTED: {
    statuses: ['INVALID_ARGUMENT'],
    where: ['api'],
    meaning: 'A container gets no devices of the host other than attached disks.',
    remedy: 'Attach the disk as a volume.',
  },
  HOOKS_NOT_SUPPORTED: {
    statuses: ['INVALID_ARGUMENT'],
    where: ['api'],
    meaning: 'Hooks are programs of the host, which a guest cannot run.',
    remedy: 'Leave the hooks out.',
  },
  ROOTFS_NOT_A_DISK: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: "The container's root file system is not one disk.",
    remedy: 'Use the blockfile or devmapper snapshotter, with ext4 or xfs.',
  },
  STREAM_NOT_USABLE: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'A FIFO for standard input or output cannot be opened.',
    remedy: 'Read why in the message.',
  },
  STREAM_NOT_SUPPORTED: {
    statuses: ['UNIMPLEMENTED'],
    where: ['api'],
    meaning: 'Standard input and output go to FIFOs only.',
    remedy: 'Use paths of FIFOs, and no logging binaries.',
  },
  POD_NETWORK_NOT_SUPPORTED: {
    statuses: ['UNIMPLEMENTED'],
    where: ['api'],
    meaning: 'The pod asks for a network of its own, and its guest would have only a loopback.',
    remedy: 'Set `hostNetwork: true` in the pod (CRI: `network: NODE`).',
  },
  SYSCTLS_NOT_SUPPORTED: {
    statuses: ['UNIMPLEMENTED'],
    where: ['api'],
    meaning: 'The pod asks for sysctls, which qshim does not set in its guest.',
    remedy: 'Leave them out, or set them by `io.qshim.kernel-parameters` (`sysctl.NAME=VALUE`).',
  },
  ANNOTATION_NOT_ENABLED: {
    statuses: ['PERMISSION_DENIED'],
    where: ['api'],
    meaning: 'The pod has an annotation of qshim that the operator has not enabled.',
    remedy: 'Leave it out, or add it to `containerd_annotations`.',
  },
  CHECKPOINT_NOT_SUPPORTED: {
    statuses: ['UNIMPLEMENTED'],
    where: ['api'],
    meaning: 'A container in a VM cannot be checkpointed by itself.',
    remedy: 'Nothing: qshim does not do it.',
  },

  // Templates and clones.
  CLONE_FAILED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The sandbox was to be a clone, and could not be.',
    remedy: 'Read why in the message, or let it boot with the template use `auto` or `off`.',
  },
  CLONE_IDENTITY_FAILED: {
    statuses: ['UNAVAILABLE'],
    where: ['inside'],
    meaning: 'A clone has not taken its identity.',
    remedy: 'Nothing: the sandbox boots instead, or the call fails with CLONE_FAILED.',
  },
  CLONE_IDENTITY_TIMEOUT: {
    statuses: ['DEADLINE_EXCEEDED'],
    where: ['inside'],
    meaning: 'A clone has not answered on its identity port in time.',
    remedy: 'Nothing: the sandbox boots instead, or the call fails with CLONE_FAILED.',
  },
  TEMPLATE_UNAVAILABLE: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'A template is required, and this host has none.',
    remedy: 'Read why in the message, or let the sandbox boot.',
  },
  TEMPLATE_GUEST_UNFIT: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'The guest cannot be a template.',
    remedy: 'Read in docs/guest.md what a template needs, or let the sandbox boot.',
  },
  TEMPLATE_SAVE_FAILED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: "QEMU could not save the template's state.",
    remedy: 'Read why in the message, or let the sandbox boot.',
  },
  TEMPLATE_RESTORE_FAILED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['inside'],
    meaning: "QEMU could not restore a template's state.",
    remedy: 'Nothing: the sandbox boots instead, or the call fails with CLONE_FAILED.',
  },
  TEMPLATE_TIMEOUT: {
    statuses: ['DEADLINE_EXCEEDED'],
    where: ['api'],
    meaning: 'The making of a template took too long.',
    remedy: 'Raise `template_timeout_ms`, or let the sandbox boot.',
  },
  TEMPLATE_INPUTS_CHANGED: {
    statuses: ['ABORTED'],
    where: ['api'],
    meaning: 'A file that the template is made of has changed meanwhile.',
    remedy: 'Call again.',
  },
  TEMPLATE_NO_MEMORY: {
    statuses: ['RESOURCE_EXHAUSTED'],
    where: ['api'],
    meaning: 'The host has too little memory left for the VM of a template.',
    remedy: 'Free memory, lower `template_free_mib`, or let the sandbox boot.',
  },
  TEMPLATE_TOO_LARGE: {
    statuses: ['RESOURCE_EXHAUSTED'],
    where: ['api'],
    meaning: 'The template takes more than all templates together may.',
    remedy: 'Raise `templates_bytes_max`, or let the sandbox boot.',
  },
  TEMPLATE_DIR_UNSAFE: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['inside'],
    meaning: 'The user of the daemon has no `templates_dir`, or others could write in it.',
    remedy: 'Give the directory to that user with mode 0700; until then every sandbox boots.',
  },
  TEMPLATE_STORE_CLOSED: {
    statuses: ['UNAVAILABLE'],
    where: ['inside'],
    meaning: 'The daemon stops, and makes no template any more.',
    remedy: 'Nothing: the next daemon makes it.',
  },

  // QEMU and the guest agent, as they answer.
  VM_GONE: {
    statuses: ['UNAVAILABLE'],
    where: ['api', 'cause'],
    meaning: 'The QEMU process is gone, and with it all that it held.',
    remedy: "Read in the sandbox's cause how it ended, and create another one.",
  },
  QMP_LOST: {
    statuses: ['UNAVAILABLE'],
    where: ['api'],
    meaning: 'The QMP connection to QEMU is down; the daemon makes it again, and finds out what was done.',
    remedy: 'Get the record, and call again.',
  },
  QMP_CONNECT_FAILED: {
    statuses: ['UNAVAILABLE'],
    where: ['api'],
    meaning: "QEMU's QMP socket does not take the connection.",
    remedy: 'Call again; if it lasts, look at the QEMU process.',
  },
  QMP_NO_GREETING: {
    statuses: ['UNAVAILABLE'],
    where: ['api'],
    meaning: 'QEMU did not greet on its QMP socket in time; it may be serving another client.',
    remedy: 'End the other client: people use `spare.sock` of the sandbox.',
  },
  QMP_REPLY_TIMEOUT: {
    statuses: ['DEADLINE_EXCEEDED'],
    where: ['api'],
    meaning:
      'QEMU has not replied to a command in time, and may have done it; the daemon looks, and undoes what it must.',
    remedy: 'Get the record, and look at why the host is slow.',
  },
  QMP_QUEUE_FULL: {
    statuses: ['RESOURCE_EXHAUSTED'],
    where: ['api'],
    meaning: 'QEMU owes as many replies as `qmp_pending_max` allows.',
    remedy: 'Call again later.',
  },
  QMP_LISTENERS_FULL: {
    statuses: ['RESOURCE_EXHAUSTED'],
    where: ['api'],
    meaning: 'As many operations of the sandbox wait for events of QEMU as can.',
    remedy: 'Call again later.',
  },
  QMP_EVENTS_OVERFLOW: {
    statuses: ['RESOURCE_EXHAUSTED'],
    where: ['api'],
    meaning: 'QEMU sent more events than an operation could take.',
    remedy: 'Get the record, and call again.',
  },
  QMP_ERROR: {
    statuses: ['INTERNAL'],
    where: ['api'],
    meaning: 'QEMU answered a command with an error that qshim does not expect.',
    remedy: "Read QEMU's own words in the message, and report it.",
  },
  QMP_PREDICATE: {
    statuses: ['INTERNAL'],
    where: ['api'],
    meaning: "qshim's own check of an event failed.",
    remedy: 'Report it: it is a bug.',
  },
  QMP_EVENT_TIMEOUT: {
    statuses: ['DEADLINE_EXCEEDED'],
    where: ['inside'],
    meaning: 'An event of QEMU did not come within the time that a look waits for it.',
    remedy: 'Nothing: qshim looks instead.',
  },
  QMP_LISTENER_CLOSED: {
    statuses: ['CANCELLED'],
    where: ['inside'],
    meaning: 'Whoever waited for an event of QEMU does not want it any more.',
    remedy: 'Nothing: it ends a wait that is over.',
  },
  GUEST_AGENT_TIMEOUT: {
    statuses: ['DEADLINE_EXCEEDED'],
    where: ['api'],
    meaning: 'The guest agent has not answered in time.',
    remedy: "Look in the guest's console, and see that the guest runs the agent.",
  },
  GUEST_AGENT_LOST: {
    statuses: ['UNAVAILABLE'],
    where: ['api'],
    meaning: 'The guest agent went away before it answered.',
    remedy: 'Call again once it is back: the daemon looks for it.',
  },
  GUEST_AGENT_GARBAGE: {
    statuses: ['UNAVAILABLE'],
    where: ['api'],
    meaning: 'The guest agent answered with something that is no answer.',
    remedy: 'Call again; if it lasts, look at what runs as the agent in the guest.',
  },
  GUEST_AGENT_CLOSED: {
    statuses: ['UNAVAILABLE'],
    where: ['api'],
    meaning: 'The daemon no longer talks to the guest agent of the sandbox: the VM or the daemon is ending.',
    remedy: 'Get the sandbox, or call the next daemon.',
  },
  GUEST_AGENT_REPLY_TOO_LARGE: {
    statuses: ['RESOURCE_EXHAUSTED'],
    where: ['api'],
    meaning:
      'The guest agent answered with a longer line than its command may have, or than `agent_line_bytes_max` allows, and its connection was ended.',
    remedy: 'Look at what answers in the guest; ask for less output, or raise `agent_line_bytes_max`.',
  },
  AGENT_QUEUE_FULL: {
    statuses: ['RESOURCE_EXHAUSTED'],
    where: ['api'],
    meaning: 'As many requests wait for the guest agent as `agent_queue_max` allows.',
    remedy: 'Call again later.',
  },

  // The daemon.
  TOO_MANY_CALLS: {
    statuses: ['RESOURCE_EXHAUSTED'],
    where: ['api'],
    meaning: 'As many calls or streams are in progress as the daemon allows, in all or for one caller.',
    remedy: 'Call again later, or raise the option that the metadata names.',
  },
  TOO_MANY_WATCHERS: {
    statuses: ['RESOURCE_EXHAUSTED'],
    where: ['api'],
    meaning: 'As many watchers are open as `watchers_max` allows.',
    remedy: 'Close one, or raise `watchers_max`.',
  },
  WATCHER_TOO_SLOW: {
    statuses: ['RESOURCE_EXHAUSTED'],
    where: ['api'],
    meaning: 'The watcher fell behind by more events than `watcher_queue_max` allows.',
    remedy: 'Watch again from the last number that it has.',
  },
  QUEUE_FULL: {
    statuses: ['RESOURCE_EXHAUSTED'],
    where: ['api'],
    meaning: 'As many callers wait for the volume as `device_queue_max` allows.',
    remedy: 'Call again later.',
  },
  EVENTS_LOST: {
    statuses: ['OUT_OF_RANGE'],
    where: ['api'],
    meaning: 'The events after that number are no longer retained, or were never given.',
    remedy: 'List the present state, and watch anew.',
  },
  JOURNAL_WRITE_FAILED: {
    statuses: ['UNAVAILABLE'],
    where: ['api'],
    meaning: 'The journal cannot be written, so what was asked for was not begun, or was undone.',
    remedy: 'Make room in `state_dir`, or make it writable again.',
  },
  DAEMON_STOPPING: {
    statuses: ['UNAVAILABLE'],
    where: ['api'],
    meaning: 'The daemon is stopping; VMs go on.',
    remedy: 'Call the next daemon.',
  },
  CALLER_GONE: {
    statuses: ['CANCELLED'],
    where: ['api'],
    meaning: 'The caller gave up waiting; what was begun goes on.',
    remedy: 'Get the record, Watch, or call again to hear how it ended.',
  },
  CANCELLED: {
    statuses: ['CANCELLED'],
    where: ['api'],
    meaning: 'A wait ended because nobody wants its result any more.',
    remedy: 'Get the record, Watch, or call again to hear how it ended.',
  },
  TIMEOUT: {
    statuses: ['DEADLINE_EXCEEDED'],
    where: ['api'],
    meaning: 'A wait without a reason of its own took too long.',
    remedy: 'Get the record, and look at why host or guest is slow.',
  },
  UNEXPECTED: {
    statuses: ['INTERNAL'],
    where: ['api'],
    meaning: 'Something failed that qshim does not expect to fail.',
    remedy: "Read the message and the daemon's log, and report it.",
  },

  // What volumes' state machine refuses its own daemon.
  NOT_DETACHING: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['inside'],
    meaning: 'An observation came that only a volume that is being detached can have.',
    remedy: 'Nothing: the log says so, and the state stays.',
  },
  NOT_UNDOING: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['inside'],
    meaning: 'An observation came that only a failed attach can have.',
    remedy: 'Nothing: the log says so, and the state stays.',
  },
  ALREADY_ATTACHED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['inside'],
    meaning: 'An attach that has succeeded was said to have failed.',
    remedy: 'Nothing: the log says so, and the state stays.',
  },

  // The start of the daemon.
  INVALID_CONFIG: {
    statuses: ['INVALID_ARGUMENT'],
    where: ['start'],
    meaning: 'An option has a value that it cannot have, or the configuration file cannot be read.',
    remedy: 'Correct every option that the message names (docs/config.md).',
  },
  INVALID_POLICY: {
    statuses: ['INVALID_ARGUMENT'],
    where: ['start'],
    meaning: 'The policy file cannot be read, is open to writers, or says something that it cannot say.',
    remedy: 'Correct what the message names (docs/policy.md).',
  },
  TLS_NOT_USABLE: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['start'],
    meaning: 'The certificate, the key or the authorities of `tls_listen` cannot be used.',
    remedy: 'Correct what the message names; the key must be closed to others.',
  },
  SOCKET_IN_USE: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['start'],
    meaning: 'Another daemon listens on the socket.',
    remedy: 'Stop the other daemon, or choose another socket and state directory.',
  },
  STATE_DIR_IN_USE: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['start'],
    meaning: 'Another daemon has the state directory: it holds the lock in it, for as long as it lives.',
    remedy: 'Stop that daemon, whose pid the message names, or choose another state directory.',
  },
  NOT_A_SOCKET: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['start'],
    meaning: 'Something that is no socket lies where the socket belongs.',
    remedy: 'Move it away, or choose another socket.',
  },
  SOCKET_DIRECTORY_OPEN: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['start'],
    meaning: 'Others may enter the directory of the socket, or own it.',
    remedy:
      'Give the directory to the daemon, with mode 0700, or choose another with the option that the message names.',
  },
  DIRECTORY_NOT_USABLE: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['start'],
    meaning: 'The user of the daemon may not make or use a directory that it needs.',
    remedy: 'Let that user have it, or choose another with the option that the message names.',
  },
  STATE_DIR_GONE: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['api'],
    meaning: 'Somebody removed the directory `state_dir` while the daemon ran, and its lock with it.',
    remedy: 'Start qshimd again; VMs that ran there go on without it, and have to be ended by hand.',
  },
  DIRECTORY_NOT_LOCKED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['start'],
    meaning: 'The directory, or the lock in it, cannot be locked against other daemons.',
    remedy: 'Read why in the message; a file system without such locks (flock(2)) cannot have it, a local one can.',
  },
  RELAY_NOT_STARTED: {
    statuses: ['UNAVAILABLE'],
    where: ['start'],
    meaning: 'The relay to containerd has not come up in time.',
    remedy: 'Read its `relay.log`.',
  },

  // The qshim command.
  USAGE: {
    statuses: ['INVALID_ARGUMENT'],
    where: ['command'],
    meaning: 'Options contradict each other, or a file or standard input cannot be used.',
    remedy: 'See `--help` of the command.',
  },
  FIO_NOT_IN_GUEST: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['command'],
    meaning: 'The guest cannot run fio, with which `qshim bench volume` measures.',
    remedy: 'Use a guest image that has fio, or attach a disk with it, and name it with `--fio`.',
  },
  BENCH_REFUSED: {
    statuses: ['FAILED_PRECONDITION'],
    where: ['command'],
    meaning: 'To measure the volume could hurt what is on it, or it is not attached.',
    remedy: 'Read the message; leave `--write-device` out, or unmount what uses the disk.',
  },
  BENCH_FAILED: {
    statuses: ['INTERNAL'],
    where: ['command'],
    meaning: 'A job of fio has failed in the guest, or said what is not understood.',
    remedy: 'Read what fio says; an I/O error is in the health of the volume too.',
  },
  DAEMON_UNREACHABLE: {
    statuses: ['UNAVAILABLE'],
    where: ['command'],
    meaning: 'No daemon answers at the socket.',
    remedy: 'Start `qshimd`, or name its socket.',
  },
  SOCKET_PATH_TOO_LONG: {
    statuses: ['INVALID_ARGUMENT'],
    where: ['command'],
    meaning: 'The path of the socket has more bytes than that of a unix socket may have (107).',
    remedy: 'Let the daemon listen on a shorter path, and name that.',
  },
  SOCKET_NOT_ACCESSIBLE: {
    statuses: ['PERMISSION_DENIED'],
    where: ['command'],
    meaning: 'The socket belongs to another user.',
    remedy: 'Run the command as the user of the daemon.',
  },
  INTERNAL: {
    statuses: ['INTERNAL'],
    where: ['command'],
    meaning: 'The command failed in a way that it does not expect.',
    remedy: 'Read the message, and report it.',
  },
} as const satisfies Readonly<Record<string, ReasonRow>>;

type Table = typeof REASONS;

/** UPPER_SNAKE, stable. */
export type Reason = keyof Table;

/** The reasons that an error of that status can have. */
export type ReasonWith<C extends ShimCode> = {
  [R in Reason]: C extends Table[R]['statuses'][number]
    ? Table[R]['where'][number] extends 'command'
      ? never
      : R
    : never;
}[Reason];

/** The reasons that decide their status, since there is one only. */
export type DecidingReason = {
  [R in Reason]: Table[R]['statuses'] extends readonly [ShimCode]
    ? Table[R]['where'][number] extends 'command'
      ? never
      : R
    : never;
}[Reason];

declare const read: unique symbol;

/**
 * A reason of this version, or one that was read: from a journal or an event file that another version wrote, or from
 * the answer of another daemon. Whoever reads cannot know all of those, and must not refuse a record for a reason that
 * it does not know. What qshim itself gives must be in the table, so a plain string is none.
 */
export type AnyReason = Reason | (string & { readonly [read]: true });

/** True for a reason of the table. */
export function isReason(text: string): text is Reason {
  return Object.hasOwn(REASONS, text);
}

/** A reason that was read, of whatever version. */
export function reasonRead(text: string): AnyReason {
  // Any text may have been written there; the brand says no more than that.
  return text as AnyReason;
}
