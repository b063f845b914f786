package desired

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
)

// The user of the services' image, which has no root and no files of its own.
const serviceUser = 65532

// binary is where the services' image keeps its program.
const binary = "/marketplane"

// amounts are a container's default resources.
type amounts struct {
	cpu, memory, memoryLimit string
}

// resources are the defaults, overlaid with what the user set. A request above
// a default limit raises that limit.
func resources(defaults amounts, set *v1alpha1.Resources) *corev1ac.ResourceRequirementsApplyConfiguration {
	requests := corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse(defaults.cpu),
		corev1.ResourceMemory: resource.MustParse(defaults.memory),
	}
	limits := corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(defaults.memoryLimit)}
	if set != nil {
		overlay(requests, set.Requests)
		overlay(limits, set.Limits)
		for name, limit := range limits {
			request := requests[name]
			if request.Cmp(limit) <= 0 {
				continue
			}
			if limitIsSet(set.Limits, name) {
				requests[name] = limit
			} else {
				limits[name] = request
			}
		}
	}
	return corev1ac.ResourceRequirements().WithRequests(requests).WithLimits(limits)
}

func overlay(list corev1.ResourceList, set v1alpha1.ResourceAmounts) {
	if set.CPU != nil {
		list[corev1.ResourceCPU] = *set.CPU
	}
	if set.Memory != nil {
		list[corev1.ResourceMemory] = *set.Memory
	}
}

func limitIsSet(set v1alpha1.ResourceAmounts, name corev1.ResourceName) bool {
	return name == corev1.ResourceCPU && set.CPU != nil || name == corev1.ResourceMemory && set.Memory != nil
}

// memoryLimit is GOMEMLIMIT: nine tenths of the container's limit, so that the
// garbage collector works harder before the kernel kills.
func memoryLimit(r *corev1ac.ResourceRequirementsApplyConfiguration) *corev1ac.EnvVarApplyConfiguration {
	limit := (*r.Limits)[corev1.ResourceMemory]
	return env("GOMEMLIMIT", strconv.FormatInt(limit.Value()/10*9, 10))
}

// processors is GOMAXPROCS: as many whole processors as the container is given, unless
// the template says another number: a variable may be there only once.
func processors(r *corev1ac.ResourceRequirementsApplyConfiguration, set *v1alpha1.PodTemplate) []*corev1ac.EnvVarApplyConfiguration {
	const variable = "GOMAXPROCS"
	if set != nil && slices.ContainsFunc(set.Env, func(v v1alpha1.EnvVar) bool { return v.Name == variable }) {
		return nil
	}
	given, limited := (*r.Limits)[corev1.ResourceCPU]
	if !limited {
		given = (*r.Requests)[corev1.ResourceCPU]
	}
	return []*corev1ac.EnvVarApplyConfiguration{env(variable, strconv.FormatInt(max(given.Value(), 1), 10))} // it rounds up
}

// container is the main container of a pod of the services' image: the
// program with one subcommand, restricted, probed on the internal port.
func (r renderer) container(component string, res *corev1ac.ResourceRequirementsApplyConfiguration) *corev1ac.ContainerApplyConfiguration {
	return corev1ac.Container().
		WithName(component).
		WithImage(r.in.Image).
		WithImagePullPolicy(corev1.PullIfNotPresent).
		WithCommand(binary).
		WithArgs(component).
		WithEnv(
			env(contract.EnvInstallation, r.in.Installation),
			fromField(contract.EnvInstance, "metadata.name"),
			memoryLimit(res),
		).
		WithResources(res).
		WithSecurityContext(restrictedContainer()).
		WithTerminationMessagePolicy(corev1.TerminationMessageFallbackToLogsOnError)
}

// probed adds the internal port and the probes on it.
func probed(c *corev1ac.ContainerApplyConfiguration) *corev1ac.ContainerApplyConfiguration {
	probe := func(path string) *corev1ac.ProbeApplyConfiguration {
		return corev1ac.Probe().
			WithHTTPGet(corev1ac.HTTPGetAction().WithPath(path).WithPort(intstr.FromString(contract.InternalPortName))).
			WithTimeoutSeconds(3)
	}
	return c.
		WithPorts(port(contract.InternalPortName, contract.InternalPort)).
		WithEnv(env(contract.EnvInternalListen, fmt.Sprintf(":%d", contract.InternalPort))).
		WithStartupProbe(probe(contract.PathReady).WithPeriodSeconds(1).WithFailureThreshold(60)).
		WithLivenessProbe(probe(contract.PathLive).WithPeriodSeconds(10).WithFailureThreshold(6)).
		WithReadinessProbe(probe(contract.PathReady).WithPeriodSeconds(5).WithFailureThreshold(3))
}

// pod is the restricted pod that every component runs in.
func pod(user int64, grace time.Duration, c *corev1ac.ContainerApplyConfiguration) *corev1ac.PodSpecApplyConfiguration {
	return corev1ac.PodSpec().
		WithAutomountServiceAccountToken(false).
		WithEnableServiceLinks(false).
		WithTerminationGracePeriodSeconds(int64(grace / time.Second)).
		WithSecurityContext(corev1ac.PodSecurityContext().
			WithRunAsNonRoot(true).
			WithRunAsUser(user).
			WithRunAsGroup(user).
			WithFSGroup(user).
			WithFSGroupChangePolicy(corev1.FSGroupChangeOnRootMismatch).
			WithSeccompProfile(corev1ac.SeccompProfile().WithType(corev1.SeccompProfileTypeRuntimeDefault))).
		WithContainers(c)
}

func restrictedContainer() *corev1ac.SecurityContextApplyConfiguration {
	return corev1ac.SecurityContext().
		WithAllowPrivilegeEscalation(false).
		WithReadOnlyRootFilesystem(true).
		WithCapabilities(corev1ac.Capabilities().WithDrop("ALL"))
}

// template is a component's pod template. config is the checksum of what the
// process reads only at its start.
func (r renderer) template(component, config string, spec *corev1ac.PodSpecApplyConfiguration) *corev1ac.PodTemplateSpecApplyConfiguration {
	return corev1ac.PodTemplateSpec().
		WithLabels(Labels(r.m, component)).
		WithAnnotations(map[string]string{AnnotationConfig: config}).
		WithSpec(spec)
}

// fingerprints is a checksum over the contents of the named Secrets.
func (r renderer) fingerprints(secrets ...string) string {
	sort.Strings(secrets)
	parts := make([]string, 0, 2*len(secrets))
	for _, name := range secrets {
		parts = append(parts, name, r.in.Fingerprints[name])
	}
	return checksum(parts...)
}

// checksum is a short digest of the parts and their order.
func checksum(parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(h, "%d:%s;", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

func env(name, value string) *corev1ac.EnvVarApplyConfiguration {
	return corev1ac.EnvVar().WithName(name).WithValue(value)
}

// fromField is a variable with what a field of the pod says.
func fromField(name, path string) *corev1ac.EnvVarApplyConfiguration {
	return corev1ac.EnvVar().WithName(name).WithValueFrom(corev1ac.EnvVarSource().
		WithFieldRef(corev1ac.ObjectFieldSelector().WithAPIVersion("v1").WithFieldPath(path)))
}

func port(name string, number int32) *corev1ac.ContainerPortApplyConfiguration {
	return corev1ac.ContainerPort().WithName(name).WithContainerPort(number).WithProtocol(corev1.ProtocolTCP)
}

// mount puts a volume's folder, whole, at path.
func mount(volume, path string) *corev1ac.VolumeMountApplyConfiguration {
	return corev1ac.VolumeMount().WithName(volume).WithMountPath(path)
}

func mountReadOnly(volume, path string) *corev1ac.VolumeMountApplyConfiguration {
	return mount(volume, path).WithReadOnly(true)
}

// secretMode lets the pod's group read what it mounts, and no one else.
const secretMode = 0o440

func secretVolume(name, secret string) *corev1ac.VolumeApplyConfiguration {
	return corev1ac.Volume().WithName(name).
		WithSecret(corev1ac.SecretVolumeSource().WithSecretName(secret).WithDefaultMode(secretMode))
}

func configMapVolume(name, configMap string) *corev1ac.VolumeApplyConfiguration {
	return corev1ac.Volume().WithName(name).
		WithConfigMap(corev1ac.ConfigMapVolumeSource().WithName(configMap))
}

func scratchVolume(name, limit string) *corev1ac.VolumeApplyConfiguration {
	return corev1ac.Volume().WithName(name).
		WithEmptyDir(corev1ac.EmptyDirVolumeSource().WithSizeLimit(resource.MustParse(limit)))
}

// selector selects a component's pods.
func (r renderer) selector(component string) *metav1ac.LabelSelectorApplyConfiguration {
	return metav1ac.LabelSelector().WithMatchLabels(SelectorLabels(r.m, component))
}

// servicePort is a Service's port that leads to a named container port.
func servicePort(name string, number int32, target string) *corev1ac.ServicePortApplyConfiguration {
	return corev1ac.ServicePort().
		WithName(name).
		WithPort(number).
		WithProtocol(corev1.ProtocolTCP).
		WithTargetPort(intstr.FromString(target))
}
