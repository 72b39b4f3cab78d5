package retrypolicy

import (
	"os"
	"regexp"
	"testing"

	"go.yaml.in/yaml/v3"

	"terbayar/internal/payment"
)

// TestChart compares the codes for which the Helm chart accepts an action with those for which it
// is safe. deploy/helm/typed compares the other rules.
func TestChart(t *testing.T) {
	const file = "../../deploy/helm/terbayar/templates/_check.tpl"
	template, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile(`(?s)define "terbayar.safeCodes" -}}\n(.*?){{- end }}`).FindSubmatch(template)
	if block == nil {
		t.Fatalf("%s does not define terbayar.safeCodes", file)
	}
	var chart map[payment.Gateway]map[Action]string
	if err := yaml.Unmarshal(block[1], &chart); err != nil {
		t.Fatal(err)
	}
	twoDigits := func(use func(string)) {
		for _, a := range "0123456789x" {
			for _, b := range "0123456789x" {
				use(string([]rune{a, b}))
			}
		}
	}
	codes := map[payment.Gateway][]string{}
	for _, g := range payment.Gateways() {
		codes[g] = []string{CodeUnsent, CodeUnknown, CodeUnreadable}
		for _, class := range "12345x" {
			twoDigits(func(rest string) { codes[g] = append(codes[g], "http:"+string(class)+rest) })
		}
	}
	codes[payment.AMDigiPay] = append(codes[payment.AMDigiPay], CodeRefused)
	codes[payment.Paydia] = append(codes[payment.Paydia], CodeUndecryptable)
	for _, status := range []string{
		"200", "201", "202", "20x", "2x0", "300", "400", "401", "402", "403", "404", "405", "406", "408", "409", "40x",
		"422", "429", "42x", "4x0", "500", "504", "5xx",
	} {
		twoDigits(func(rest string) {
			codes[payment.Paydia] = append(codes[payment.Paydia], status+"63"+rest, status+"xx"+rest)
		})
	}
	for _, g := range payment.Gateways() {
		for _, action := range actions {
			pattern, limited := chart[g][action]
			accepts := regexp.MustCompile(pattern)
			safeFor := 0
			for _, code := range codes[g] {
				if !codePatterns[g].MatchString(code) {
					t.Fatalf("%s is not a code", code)
				}
				_, _, safe := checkSafe(g, code, action)
				if safe {
					safeFor++
				}
				if accepts.MatchString(code) != safe {
					t.Errorf("%s: %s for %s: the chart accepts it: %t, it is safe: %t", g, action, code, !safe, safe)
				}
			}
			if limited == (safeFor == len(codes[g])) || safeFor == 0 {
				t.Errorf("%s: %s is safe for %d codes", g, action, safeFor)
			}
		}
	}
}
