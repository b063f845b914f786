package desired

import (
	"strings"

	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
)

// busClient is how the services reach the bus.
type busClient struct {
	env    []*corev1ac.EnvVarApplyConfiguration
	mounts []*corev1ac.VolumeMountApplyConfiguration
	volume []*corev1ac.VolumeApplyConfiguration
	// secrets are those that are read only at the start.
	secrets []string
}

func (r renderer) busClient() busClient {
	if external := r.m.Spec.Bus.External; external != nil {
		return externalBusClient(*external)
	}
	return busClient{
		env: []*corev1ac.EnvVarApplyConfiguration{
			env(contract.EnvBusURL, r.names.busURL()),
			env(contract.EnvBusTokenFile, contract.MountBus+"/"+contract.FileBusToken),
		},
		mounts:  []*corev1ac.VolumeMountApplyConfiguration{mountReadOnly("bus", contract.MountBus)},
		volume:  []*corev1ac.VolumeApplyConfiguration{secretVolume("bus", r.names.Bus())},
		secrets: []string{r.names.Bus()},
	}
}

// externalBusClient mounts the user's Secrets themselves. They are read again at
// each connection, so a new token rolls nothing. Every file is optional: which
// of the credentials there are is the Secret's to say, and a Secret that is gone
// must keep no pod from starting, since the bus may be lost at any time.
func externalBusClient(bus v1alpha1.ExternalBus) busClient {
	c := busClient{env: []*corev1ac.EnvVarApplyConfiguration{env(contract.EnvBusURL, strings.Join(BusURLs(bus), ","))}}
	files := corev1ac.ProjectedVolumeSource().WithDefaultMode(secretMode)
	mountFiles := func(secret string, items ...*corev1ac.KeyToPathApplyConfiguration) {
		files.WithSources(corev1ac.VolumeProjection().WithSecret(corev1ac.SecretProjection().
			WithName(secret).WithOptional(true).WithItems(items...)))
	}
	item := func(key, path string) *corev1ac.KeyToPathApplyConfiguration {
		return corev1ac.KeyToPath().WithKey(key).WithPath(path)
	}
	if ref := bus.CredentialsSecretRef; ref != nil {
		mountFiles(ref.Name,
			item(contract.FileBusToken, contract.FileBusToken),
			item(contract.FileBusUsername, contract.FileBusUsername),
			item(contract.FilePassword, contract.FilePassword),
			item(contract.FileBusCreds, contract.FileBusCreds))
		c.env = append(c.env, env(contract.EnvBusCredentialsDir, contract.MountBus))
	}
	if tls := bus.TLS; tls != nil && tls.CASecretRef != nil {
		mountFiles(tls.CASecretRef.Name, item(tls.CASecretRef.KeyOr(contract.FileCA), contract.FileCA))
		c.env = append(c.env, env(contract.EnvBusCAFile, contract.MountBus+"/"+contract.FileCA))
	}
	if tls := bus.TLS; tls != nil && tls.ClientCertificateSecretRef != nil {
		mountFiles(tls.ClientCertificateSecretRef.Name,
			item(contract.FileCertificate, contract.FileCertificate), item(contract.FileKey, contract.FileKey))
		c.env = append(c.env,
			env(contract.EnvBusCertificateFile, contract.MountBus+"/"+contract.FileCertificate),
			env(contract.EnvBusKeyFile, contract.MountBus+"/"+contract.FileKey))
	}
	if len(files.Sources) > 0 {
		c.mounts = append(c.mounts, mountReadOnly("bus", contract.MountBus))
		c.volume = append(c.volume, corev1ac.Volume().WithName("bus").WithProjected(files))
	}
	return c
}

// BusURLs are the URLs that an external bus is reached by: with TLS where it is
// asked for.
func BusURLs(bus v1alpha1.ExternalBus) []string {
	urls := make([]string, 0, len(bus.URLs))
	for _, u := range bus.URLs {
		address := string(u)
		if rest, ok := strings.CutPrefix(address, "nats://"); ok && bus.TLS != nil {
			address = "tls://" + rest
		}
		urls = append(urls, address)
	}
	return urls
}
