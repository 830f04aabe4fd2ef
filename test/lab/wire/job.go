// SPDX-License-Identifier: MIT

package wire

// JobPath is where the guest's init finds its Job.
const JobPath = "/lab/job.json"

// Job is what the guest's init is to do; it travels in the initrd.
type Job struct {
	// Args is the command and its arguments.
	Args []string `json:"args"`
	// Env is added to the guest's own small environment.
	Env []string `json:"env,omitempty"`
	// Dir is the command's working directory; empty means /.
	Dir string `json:"dir,omitempty"`
	// Control is the terminal device of the framed channel.
	Control string `json:"control"`
	// Console is the terminal device that people and the kernel use.
	Console string `json:"console"`
	// Interactive gives the command the console as its controlling terminal
	// instead of pipes through the framed channel.
	Interactive bool `json:"interactive,omitempty"`
	// Size is that of the interactive terminal.
	Size Size `json:"size"`
	// Modules are loaded with modprobe before the command starts.
	Modules []string `json:"modules,omitempty"`
	// Collect names files that are sent to the host after the command ended.
	Collect []string `json:"collect,omitempty"`
	// UnixNano is the host's time, for machines without a clock of their own.
	UnixNano int64 `json:"unix_nano,omitempty"`
}

// Size is a terminal's.
type Size struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// ExitStatus is how the command ended.
type ExitStatus struct {
	// Code is the exit status, or -1 when there is none.
	Code int `json:"code"`
	// Signal is the signal that ended the command, or 0.
	Signal int `json:"signal,omitempty"`
	// Error says why the command could not be run at all.
	Error string `json:"error,omitempty"`
}
