// Original file: proto/qshim/v1/sandboxes.proto


export interface ExecStreamInputEnd {
}

export interface ExecStreamInputEnd__Output {
}
