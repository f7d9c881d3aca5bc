-- How the applications that usersync comes from guard their tables, kept to be recognised: DO NOT RUN THIS. auth.uid() casts the
-- subject of the token to uuid, and Clerk's ids are none (user_2abc...), so that each request of a signed-in user ends
-- with "invalid input syntax for type uuid". `usersync policies check` finds such policies under any name, and
-- `usersync policies apply --replace-broken` puts those of policies.sql in their place.

ALTER TABLE public.user_progress ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Users can view own user_progress" ON public.user_progress FOR SELECT USING (auth.uid()::text = user_id);
CREATE POLICY "Users can insert own user_progress" ON public.user_progress FOR INSERT WITH CHECK (auth.uid()::text = user_id);
CREATE POLICY "Users can update own user_progress" ON public.user_progress FOR UPDATE USING (auth.uid()::text = user_id);
CREATE POLICY "Users can delete own user_progress" ON public.user_progress FOR DELETE USING (auth.uid()::text = user_id);

ALTER TABLE public.tasks ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Users can view own tasks" ON public.tasks FOR SELECT USING (auth.uid()::text = user_id);
CREATE POLICY "Users can insert own tasks" ON public.tasks FOR INSERT WITH CHECK (auth.uid()::text = user_id);
CREATE POLICY "Users can update own tasks" ON public.tasks FOR UPDATE USING (auth.uid()::text = user_id);
CREATE POLICY "Users can delete own tasks" ON public.tasks FOR DELETE USING (auth.uid()::text = user_id);

ALTER TABLE public.daily_checkins ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Users can view own daily_checkins" ON public.daily_checkins FOR SELECT USING (auth.uid()::text = user_id);
CREATE POLICY "Users can insert own daily_checkins" ON public.daily_checkins FOR INSERT WITH CHECK (auth.uid()::text = user_id);
CREATE POLICY "Users can update own daily_checkins" ON public.daily_checkins FOR UPDATE USING (auth.uid()::text = user_id);
CREATE POLICY "Users can delete own daily_checkins" ON public.daily_checkins FOR DELETE USING (auth.uid()::text = user_id);

ALTER TABLE public.moods ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Users can view own moods" ON public.moods FOR SELECT USING (auth.uid()::text = user_id);
CREATE POLICY "Users can insert own moods" ON public.moods FOR INSERT WITH CHECK (auth.uid()::text = user_id);
CREATE POLICY "Users can update own moods" ON public.moods FOR UPDATE USING (auth.uid()::text = user_id);
CREATE POLICY "Users can delete own moods" ON public.moods FOR DELETE USING (auth.uid()::text = user_id);
