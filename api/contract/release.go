package contract

// Both programs of the image are of one release. The chart's version and its
// image tag are the same without the "v"; a test holds them together.
const (
	// Release is the one that this source makes.
	Release = "v0.2.0"
	// PreviousRelease is the other one whose workloads the operator still
	// renders as they were.
	PreviousRelease = "v0.1.0"
	// PreviousCommit is its commit, for where the repository lacks its tag.
	PreviousCommit = "e8c02dd45b9cd04a110f9c2bb80dd35c581afcbd"
)
