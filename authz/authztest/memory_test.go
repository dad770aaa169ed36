package authztest_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authztest"
)

func TestMemoryKeepsTheRules(t *testing.T) {
	authztest.StoreSuite(t, func(*testing.T) authztest.Bench {
		clock := authztest.NewClock()
		m := authztest.NewMemory(clock)
		return authztest.Bench{
			Store:       m,
			Clock:       clock,
			Save:        func(_ *testing.T, id string, s authz.Session, ttl time.Duration) { m.Put(id, s, ttl) },
			Destroy:     func(_ *testing.T, id string) { m.Delete(id) },
			SaveProfile: func(_ *testing.T, userID string, p *authz.Profile) { m.PutProfile(userID, p) },
			Expire:      func(*testing.T, string) { clock.Advance(time.Hour) },
			Cut:         func(*testing.T) { m.Fail(errors.New("unplugged")) },
		}
	})
}

func TestMemoryCountsAndHeals(t *testing.T) {
	m := authztest.NewMemory(authztest.NewClock())
	m.Put("id", authz.Session{Identity: authz.Identity{ID: "u"}}, 0)
	m.Fail(errors.New("unplugged"))
	_, err := m.Session(t.Context(), "id", authz.ReadOptions{})
	require.ErrorContains(t, err, "unplugged")
	m.Fail(nil)
	_, err = m.Session(t.Context(), "id", authz.ReadOptions{})
	require.NoError(t, err)
	_, err = m.TokenStanding(t.Context(), authz.TokenRef{}, authz.ReadOptions{})
	require.NoError(t, err)
	require.Equal(t, 3, m.Asked())
}

func TestUnsignedTakesWhatIsMarked(t *testing.T) {
	id, ok := authztest.Unsigned{}.Verify("ok.id")
	require.True(t, ok)
	require.Equal(t, "id", id)
	for _, value := range []string{"", "id", "ok.", "forged.id"} {
		_, ok := authztest.Unsigned{}.Verify(value)
		require.False(t, ok, value)
	}
}
