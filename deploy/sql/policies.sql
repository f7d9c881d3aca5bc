-- Row-level security that works with Clerk's ids, for the four tables of the default spec in schema public.
-- The same as `usersync policies apply` makes, and the other way round: that one finds nothing to do afterwards. For other
-- tables let `usersync policies apply --print` write it. Needs Clerk as a third-party auth provider of the project, and
-- session tokens with the claim "role": "authenticated".
-- Run it as the owner of the tables (on Supabase: postgres, in the SQL editor), once.
BEGIN;

CREATE POLICY usersync_select ON "public"."user_progress" FOR SELECT TO authenticated
    USING ((SELECT auth.jwt() ->> 'sub') = "user_id");
CREATE POLICY usersync_insert ON "public"."user_progress" FOR INSERT TO authenticated
    WITH CHECK ((SELECT auth.jwt() ->> 'sub') = "user_id");
CREATE POLICY usersync_update ON "public"."user_progress" FOR UPDATE TO authenticated
    USING ((SELECT auth.jwt() ->> 'sub') = "user_id")
    WITH CHECK ((SELECT auth.jwt() ->> 'sub') = "user_id");
CREATE POLICY usersync_delete ON "public"."user_progress" FOR DELETE TO authenticated
    USING ((SELECT auth.jwt() ->> 'sub') = "user_id");
ALTER TABLE "public"."user_progress" ENABLE ROW LEVEL SECURITY;

CREATE POLICY usersync_select ON "public"."tasks" FOR SELECT TO authenticated
    USING ((SELECT auth.jwt() ->> 'sub') = "user_id");
CREATE POLICY usersync_insert ON "public"."tasks" FOR INSERT TO authenticated
    WITH CHECK ((SELECT auth.jwt() ->> 'sub') = "user_id");
CREATE POLICY usersync_update ON "public"."tasks" FOR UPDATE TO authenticated
    USING ((SELECT auth.jwt() ->> 'sub') = "user_id")
    WITH CHECK ((SELECT auth.jwt() ->> 'sub') = "user_id");
CREATE POLICY usersync_delete ON "public"."tasks" FOR DELETE TO authenticated
    USING ((SELECT auth.jwt() ->> 'sub') = "user_id");
ALTER TABLE "public"."tasks" ENABLE ROW LEVEL SECURITY;

CREATE POLICY usersync_select ON "public"."daily_checkins" FOR SELECT TO authenticated
    USING ((SELECT auth.jwt() ->> 'sub') = "user_id");
CREATE POLICY usersync_insert ON "public"."daily_checkins" FOR INSERT TO authenticated
    WITH CHECK ((SELECT auth.jwt() ->> 'sub') = "user_id");
CREATE POLICY usersync_update ON "public"."daily_checkins" FOR UPDATE TO authenticated
    USING ((SELECT auth.jwt() ->> 'sub') = "user_id")
    WITH CHECK ((SELECT auth.jwt() ->> 'sub') = "user_id");
CREATE POLICY usersync_delete ON "public"."daily_checkins" FOR DELETE TO authenticated
    USING ((SELECT auth.jwt() ->> 'sub') = "user_id");
ALTER TABLE "public"."daily_checkins" ENABLE ROW LEVEL SECURITY;

CREATE POLICY usersync_select ON "public"."moods" FOR SELECT TO authenticated
    USING ((SELECT auth.jwt() ->> 'sub') = "user_id");
CREATE POLICY usersync_insert ON "public"."moods" FOR INSERT TO authenticated
    WITH CHECK ((SELECT auth.jwt() ->> 'sub') = "user_id");
CREATE POLICY usersync_update ON "public"."moods" FOR UPDATE TO authenticated
    USING ((SELECT auth.jwt() ->> 'sub') = "user_id")
    WITH CHECK ((SELECT auth.jwt() ->> 'sub') = "user_id");
CREATE POLICY usersync_delete ON "public"."moods" FOR DELETE TO authenticated
    USING ((SELECT auth.jwt() ->> 'sub') = "user_id");
ALTER TABLE "public"."moods" ENABLE ROW LEVEL SECURITY;

COMMIT;
