// Package pki makes the cluster's certificates: two authorities (one for the
// cluster, one for the API server's aggregation layer), a certificate for each
// component, and kubeconfigs that hold them.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Lifetime of every certificate. The cluster is made anew far more often.
const Lifetime = 2 * 365 * 24 * time.Hour

// Authority signs certificates.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	// CertPEM is the authority's certificate.
	CertPEM []byte
	now     time.Time
}

// Pair is a certificate with its key, both PEM.
type Pair struct{ CertPEM, KeyPEM []byte }

// Subject is what a certificate says of its holder.
type Subject struct {
	// Name is the user to Kubernetes, and Groups are its groups.
	Name   string
	Groups []string
	// Hosts are the DNS names and IP addresses of a server; none makes a
	// certificate for clients only.
	Hosts []string
}

// NewAuthority makes a self-signed authority that is valid from a bit before
// now.
func NewAuthority(name string, now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("key of authority %s: %w", name, err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(Lifetime),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("certificate of authority %s: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certificate of authority %s: %w", name, err)
	}
	return &Authority{cert: cert, key: key, CertPEM: pemBlock("CERTIFICATE", der), now: now}, nil
}

// KeyPEM returns the authority's key, which the controller manager needs to
// sign certificate requests.
func (a *Authority) KeyPEM() ([]byte, error) { return keyPEM(a.key) }

// Issue makes a key and a certificate for it.
func (a *Authority) Issue(s Subject) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("key of %s: %w", s.Name, err)
	}
	serial, err := newSerial()
	if err != nil {
		return Pair{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: s.Name, Organization: s.Groups},
		NotBefore: a.now.Add(-time.Hour), NotAfter: a.now.Add(Lifetime),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, host := range s.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	if len(s.Hosts) > 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("certificate of %s: %w", s.Name, err)
	}
	keyData, err := keyPEM(key)
	if err != nil {
		return Pair{}, fmt.Errorf("key of %s: %w", s.Name, err)
	}
	return Pair{CertPEM: pemBlock("CERTIFICATE", der), KeyPEM: keyData}, nil
}

// NewKeyPair makes a bare key pair, PEM, for signing service account tokens.
func NewKeyPair() (private, public []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("service account key: %w", err)
	}
	if private, err = keyPEM(key); err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, nil, fmt.Errorf("service account key: %w", err)
	}
	return private, pemBlock("PUBLIC KEY", der), nil
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pemBlock("EC PRIVATE KEY", der), nil
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("serial number: %w", err)
	}
	return serial.Add(serial, big.NewInt(1)), nil
}

// Write puts a pair into a folder as NAME.crt and NAME.key.
func (p Pair) Write(dir, name string) error {
	return writeFiles(dir, map[string][]byte{name + ".crt": p.CertPEM, name + ".key": p.KeyPEM})
}

func writeFiles(dir string, files map[string][]byte) error {
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}

// Kubeconfig renders a kubeconfig (JSON, which every YAML reader reads) whose
// one cluster, user and context are called name.
func Kubeconfig(name, server string, caPEM []byte, p Pair) ([]byte, error) {
	type object map[string]any
	data, err := json.MarshalIndent(object{
		"apiVersion": "v1", "kind": "Config", "current-context": name, "preferences": object{},
		"clusters": []object{{"name": name, "cluster": object{"server": server, "certificate-authority-data": caPEM}}},
		"users":    []object{{"name": name, "user": object{"client-certificate-data": p.CertPEM, "client-key-data": p.KeyPEM}}},
		"contexts": []object{{"name": name, "context": object{"cluster": name, "user": name}}},
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode kubeconfig: %w", err)
	}
	return data, nil
}
